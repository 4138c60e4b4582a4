"""Convolution as three JAX primitives, so that each of them is computed in the best way of its platform.

A convolution y of images x with a kernel w, weighed by a map g, is linear in all three: T(x, w, g) = <y, g>. Its three
derivatives are `conv` (for g), `input_grad` (for x) and `kernel_grad` (for w); each is linear in two arguments, and the
derivatives of each are the other two. So derivatives of every order and in both modes, vmap, remat, shard_map and
automatic partitioning come from these few rules. On a GPU or TPU each is the plain `lax.conv_general_dilated` or its
transpose; on a CPU layers/forms.py says how it is computed.
"""

from functools import partial

import jax
from jax.interpreters import ad

from cnn_jax.layers import forms
from cnn_jax.layers.geometry import PLAIN, Geometry
from cnn_jax.layers.lowered import primitive

conv_p, input_grad_p, kernel_grad_p = (
    primitive(name, plain, partial(forms.choose, name), by_image=name != "kernel_grad") for name, plain in PLAIN.items()
)


def conv(x: jax.Array, w: jax.Array, geometry: Geometry, native: bool) -> jax.Array:
    """plain_conv; on a CPU with `native` by oneDNN, where that is at hand."""
    return conv_p.bind(x, w, geometry=geometry, native=native)


# Each rule: (cotangent, first argument, second argument) -> the cotangent of the one that is not known.
ad.defbilinear(
    conv_p,
    lambda t, x, w, **how: input_grad_p.bind(t, w, **how),
    lambda t, x, w, **how: kernel_grad_p.bind(x, t, **how),
)
ad.defbilinear(
    input_grad_p,
    lambda t, g, w, **how: conv_p.bind(t, w, **how),
    lambda t, g, w, **how: kernel_grad_p.bind(t, g, **how),
)
ad.defbilinear(
    kernel_grad_p,
    lambda t, x, g, **how: input_grad_p.bind(g, t, **how),
    lambda t, x, g, **how: conv_p.bind(x, t, **how),
)
