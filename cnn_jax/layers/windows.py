"""Maxima and sums over windows, as primitives like those of layers/primitives.py.

XLA's own reduce_window and, above all, its gradient are slow on a CPU: there these are maxima and sums of shifted
slices, or layers/native.py's loops. Images are (B, H, W, C); `pads` are (low, high) pixels per axis, -inf or zeros.
"""

import functools
import operator
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad

from cnn_jax.layers import native as _native
from cnn_jax.layers.geometry import Geometry, shifted
from cnn_jax.layers.lowered import chosen, primitive, vary_alike


def window_max(x: jax.Array, geometry: Geometry) -> jax.Array:
    """The maximum over each window; its gradient goes to the first of several equal values, row by row."""
    if (kind := chosen()) == "xla":
        return _max(x, geometry=geometry)
    return max_p.bind(x, geometry=geometry, native=kind == "auto")


def window_sum(x: jax.Array, geometry: Geometry) -> jax.Array:
    """The sum over each window."""
    if (kind := chosen()) == "xla":
        return _sum(x, geometry=geometry)
    return sum_p.bind(x, geometry=geometry, native=kind == "auto")


# What JAX has: the plain forms.
def _max(x, *, geometry: Geometry):
    return nn.max_pool(x, geometry.window, geometry.stride, geometry.padding)


def _max_tangent(dx, x, *, geometry: Geometry):
    return jax.jvp(functools.partial(_max, geometry=geometry), (x,), (dx,))[1]


def _max_grad(g, x, *, geometry: Geometry):
    return jax.vjp(functools.partial(_max, geometry=geometry), x)[1](g)[0]


def _sum(x, *, geometry: Geometry):
    window, stride = (1, *geometry.window, 1), (1, *geometry.stride, 1)
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, stride, [(0, 0), *geometry.padding, (0, 0)])


def _sum_grad(g, *, geometry: Geometry):
    return _transposed(functools.partial(_sum, geometry=geometry), g, geometry)


# Forms for a CPU.
def _taps(x, geometry: Geometry, fill: float) -> Iterator[jax.Array]:
    padded = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)), constant_values=fill)
    return (tap for _, tap in shifted(padded, geometry))


def _shifted_max(x, *, geometry: Geometry):
    return functools.reduce(jnp.maximum, _taps(x, geometry, -jnp.inf))


def _shifted_tangent(dx, x, *, geometry: Geometry):
    """Of each window the value of dx where x has its first maximum."""
    taps = list(_taps(x, geometry, -jnp.inf))
    best, where = taps[0], jnp.zeros(taps[0].shape, jnp.int8)
    for number, tap in enumerate(taps[1:], start=1):
        where = jnp.where(tap > best, jnp.int8(number), where)
        best = jnp.maximum(best, tap)
    chosen_taps = (jnp.where(where == number, tap, 0) for number, tap in enumerate(_taps(dx, geometry, 0.0)))
    return functools.reduce(operator.add, chosen_taps)


def _shifted_max_grad(g, x, *, geometry: Geometry):
    return _transposed(lambda dx: _shifted_tangent(dx, x, geometry=geometry), g, geometry)


def _shifted_sum(x, *, geometry: Geometry):
    return functools.reduce(operator.add, _taps(x, geometry, 0.0))


def _shifted_sum_grad(g, *, geometry: Geometry):
    window = geometry.window
    if geometry.stride == window and geometry.size == tuple(map(operator.mul, geometry.out, window)):  # none overlap
        (batch, height, width, channels), (kh, kw) = g.shape, window
        spread = jnp.broadcast_to(g[:, :, None, :, None], (batch, height, kh, width, kw, channels))
        return spread.reshape(batch, *geometry.size, channels)
    return _transposed(functools.partial(_shifted_sum, geometry=geometry), g, geometry)


def _transposed(linear: Callable, g: jax.Array, geometry: Geometry) -> jax.Array:
    images, _ = vary_alike(jnp.zeros((g.shape[0], *geometry.size, g.shape[3]), g.dtype), g)
    return jax.linear_transpose(linear, images)(g)[0]


def _on_cpu(form: Callable, own: Callable | None = None) -> Callable:
    def choose(avals, *, native: bool, whole: bool, geometry: Geometry) -> Callable:
        fast = own is not None and native and avals[0].dtype == jnp.float32 and _native.ready()
        return functools.partial(own if fast else form, geometry=geometry)

    return choose


max_p = primitive("window_max", _max, _on_cpu(_shifted_max, _native.window_max))
max_tangent_p = primitive("window_max_tangent", _max_tangent, _on_cpu(_shifted_tangent))
max_grad_p = primitive("window_max_grad", _max_grad, _on_cpu(_shifted_max_grad, _native.window_max_grad))
sum_p = primitive("window_sum", _sum, _on_cpu(_shifted_sum))
sum_grad_p = primitive("window_sum_grad", _sum_grad, _on_cpu(_shifted_sum_grad))


def _linear_in_first(made, other) -> None:
    """Derivatives of a primitive that is linear in its first array, constant nearly everywhere in the second."""

    def jvp(primals, tangents, **how):
        y = made.bind(*primals, **how)
        if isinstance(tangents[0], ad.Zero):
            return y, ad.instantiate_zeros(ad.Zero(jax.typeof(y)))
        return y, made.bind(tangents[0], *primals[1:], **how)

    ad.primitive_jvps[made] = jvp
    ad.primitive_transposes[made] = lambda ct, _, *rest, **how: [
        other.bind(ad.instantiate_zeros(ct), *rest, **how),
        *(None for _ in rest),
    ]


_linear_in_first(max_tangent_p, max_grad_p)
_linear_in_first(max_grad_p, max_tangent_p)
_linear_in_first(sum_p, sum_grad_p)
_linear_in_first(sum_grad_p, sum_p)
ad.defjvp(max_p, max_tangent_p.bind)
