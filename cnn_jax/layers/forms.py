"""How a CPU computes a convolution and its two gradients (layers/primitives.py), in plain JAX or by oneDNN.

XLA's own convolution is two to thirty times slower than these where groups or 1x1 kernels are concerned; which form
is the best was measured for each class of shapes, see docs/performance.md.
"""

import functools
import math
import operator
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.layers import native as _native
from cnn_jax.layers.geometry import PLAIN, Geometry, plain_conv, shifted, transposed
from cnn_jax.layers.lowered import vary_alike

SMALL = (jnp.bfloat16, jnp.float16)  # computed in float32 on a CPU


def choose(name: str, avals, *, native: bool, whole: bool, geometry: Geometry) -> Callable:
    """The function of two arrays that computes primitive `name` for arguments of these types; see lowered.primitive."""
    if (dtype := avals[0].dtype) in SMALL:
        wide = choose(
            name, [aval.update(dtype=jnp.float32) for aval in avals], native=native, whole=whole, geometry=geometry
        )
        return lambda a, b: wide(a.astype(jnp.float32), b.astype(jnp.float32)).astype(dtype)
    if geometry.dense:
        return partial(DENSE[name], geometry=geometry)
    if native and dtype == jnp.float32 and _native.ready():
        return partial(_native.convolution, name, geometry)
    per_group, features = _kernel_channels(name, *avals, geometry)
    if geometry.groups > 1:
        depthwise = per_group == 1 and geometry.groups == features
        if depthwise and name == "kernel_grad" and whole:
            return partial(_depthwise_kernel_grad, geometry=geometry)
        own = _depthwise if depthwise else _grouped
    elif geometry.window == (1, 1):
        own = _pointwise
    else:
        return partial(PLAIN[name], geometry=geometry)
    return _derived(name, own, geometry)


def _kernel_channels(name, first, second, geometry) -> tuple[int, int]:
    """C // groups and O."""
    if name == "kernel_grad":
        return first.shape[3] // geometry.groups, second.shape[3]
    return second.shape[2], second.shape[3]


def _derived(name: str, conv: Callable, geometry: Geometry) -> Callable:
    """Primitive `name` from a form of the convolution, by transposing that."""
    if name == "conv":
        return partial(conv, geometry=geometry)
    if name == "input_grad":
        return lambda g, w: transposed(conv, geometry, 0, g, w)
    return lambda x, g: transposed(conv, geometry, 1, g, x)


def _padded(x: jax.Array, geometry: Geometry) -> jax.Array:
    return jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))


def _dense(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """A fully connected layer over a map."""
    return lax.dot(x.reshape(x.shape[0], -1), w.reshape(-1, w.shape[3]))[:, None, None]


def _dense_input_grad(g: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    x = lax.dot_general(g[:, 0, 0], w.reshape(-1, w.shape[3]), (((1,), (1,)), ((), ())))
    return x.reshape(len(g), *geometry.size, w.shape[2])


def _dense_kernel_grad(x: jax.Array, g: jax.Array, geometry: Geometry) -> jax.Array:
    """In the kernel's own order; the transpose of `_dense` would be brought there value by value."""
    w = lax.dot_general(x.reshape(len(x), -1), g[:, 0, 0], (((0,), (0,)), ((), ())))
    return w.reshape(*geometry.window, x.shape[3], g.shape[3])


DENSE = {"conv": _dense, "input_grad": _dense_input_grad, "kernel_grad": _dense_kernel_grad}


def _pointwise(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """A 1x1 convolution as a matrix product over channels."""
    x = _padded(x, geometry)[:, :: geometry.stride[0], :: geometry.stride[1]]
    return lax.dot_general(x, w[0, 0], (((3,), (0,)), ((), ())))


def _depthwise(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """A depthwise convolution as a sum of shifted products."""
    taps = shifted(_padded(x, geometry), geometry)
    return functools.reduce(operator.add, (tap * w[i, j, 0] for (i, j), tap in taps))


def _depthwise_kernel_grad(x: jax.Array, g: jax.Array, geometry: Geometry) -> jax.Array:
    """Sums of shifted products over a few rows of an image at a time, which stay in the cache."""
    x, (kh, kw), sh, (height, width) = _padded(x, geometry), geometry.window, geometry.stride[0], geometry.out
    batch, channels = x.shape[0], x.shape[3]
    rows = max(r for r in range(1, 9) if height % r == 0)
    turns = height // rows
    few = geometry._replace(size=((rows - 1) * sh + geometry.reach[0], x.shape[2]), padding=((0, 0), (0, 0)))

    def add(turn, sums):
        image, row = turn // turns, turn % turns * rows
        some = lax.dynamic_slice(g, (image, row, 0, 0), (1, rows, width, channels))[0]
        seen = lax.dynamic_slice(x, (image, row * sh, 0, 0), (1, *few.size, channels))
        taps = (tap[0] for _, tap in shifted(seen, few))
        return tuple(total + (tap * some).sum(0) for total, tap in zip(sums, taps, strict=True))

    zeros, *_ = vary_alike(jnp.zeros((width, channels), x.dtype), x, g)
    sums = lax.fori_loop(0, batch * turns, add, (zeros,) * (kh * kw))
    return jnp.stack([total.sum(0) for total in sums]).reshape(kh, kw, 1, channels)


def _grouped(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """A grouped convolution as dense ones over about 64 channels each, zeros between the groups."""
    kh, kw, width, features = w.shape
    groups = geometry.groups
    merged = math.gcd(groups, max(1, 64 // width))  # groups made dense together
    parts = groups // merged
    w = w.reshape(kh, kw, 1, width, parts, merged, features // groups)
    w = w * jnp.eye(merged, dtype=w.dtype)[:, None, None, :, None]
    w = w.reshape(kh, kw, merged * width, parts, merged * features // groups)
    dense = geometry._replace(groups=1)
    pieces = [plain_conv(piece, w[..., i, :], dense) for i, piece in enumerate(jnp.split(x, parts, axis=-1))]
    return jnp.concatenate(pieces, axis=-1)
