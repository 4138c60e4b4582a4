"""Means and sums over all but the channels, which batch norm needs, and which XLA's loops for a CPU are slow at.

Arrays are (G, N, C), G groups of N values of a channel; what is one for a channel is (G, C). As in layers/primitives.py
these are primitives, so that a CPU can compute them in its own way (layers/native.py, or some rows at a time) and every
derivative exists.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad

from cnn_jax.layers import native as _native
from cnn_jax.layers.lowered import chosen, primitive, vary_alike


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over N: (G, N, C) -> two (G, C)."""
    if (kind := chosen()) == "xla":
        return _moments(x)
    return moments_p.bind(x, native=kind == "auto")


def means(x: jax.Array) -> jax.Array:
    """Means over N: (G, N, C) -> (G, C)."""
    if chosen() == "xla":
        return _means(x)
    return means_p.bind(x, native=False)


def affine(x: jax.Array, gain: jax.Array, shift: jax.Array) -> jax.Array:
    """x * gain + shift, (G, N, C) with two (G, C) -> (G, N, C)."""
    if (kind := chosen()) == "xla":
        return _affine(x, gain, shift)
    return affine_p.bind(*vary_alike(x, gain, shift), native=kind == "auto")


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x + bias, (B, H, W, C) with (C,) -> (B, H, W, C)."""
    if chosen() == "xla":
        return x + bias
    batch, height, width, channels = x.shape
    whole = x.reshape(1, batch * height * width, channels)
    return affine(whole, jnp.ones_like(bias)[None], bias[None]).reshape(x.shape)


def scale_channels(x: jax.Array, gain: jax.Array) -> jax.Array:
    """Each image's channels times its own numbers: (B, H, W, C) with (B, C) -> (B, H, W, C)."""
    batch, height, width, channels = x.shape
    return affine(x.reshape(batch, height * width, channels), gain, jnp.zeros_like(gain)).reshape(x.shape)


def _means(x):
    return x.mean(1)


def _means_by_product(x):
    """XLA's own sum over an axis in the middle takes 4 to 35 times as long."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    total = lax.dot_general(jnp.ones((x.shape[0], 1, x.shape[1]), wide.dtype), wide, (((2,), (1,)), ((0,), (0,))))
    return (total[:, 0] / x.shape[1]).astype(x.dtype)


def _moments(x):
    mean = x.mean(1)
    # Two passes: E[x^2] - E[x]^2 loses the variance of a layer whose mean is large.
    return mean, jnp.square(x - mean[:, None]).mean(1)


def _affine(x, gain, shift):
    return x * gain[:, None] + shift[:, None]


def _sums(x, g):
    """Over N: x * g and g."""
    return (x * g).sum(1), g.sum(1)


def _on_cpu(plain: Callable, by_rows: Callable, own: Callable) -> Callable:
    def choose(avals, *, native: bool, whole: bool) -> Callable:
        if avals[0].dtype != jnp.float32:
            return plain  # which adds in float32
        return own if native and _native.ready() else by_rows if whole else plain

    return choose


def _by_rows(values, *arrays):
    """Sums over N of values(*some rows of arrays), which a loop adds in the cache: XLA's own sum of such is slow."""
    count = arrays[0].shape[1]
    rows = next(r for r in range(min(16, count), 0, -1) if count % r == 0)

    def add(turn, totals):
        some = [lax.dynamic_slice_in_dim(array, turn * rows, rows, 1) for array in arrays]
        return tuple(total + value for total, value in zip(totals, values(*some), strict=True))

    like = jax.eval_shape(values, *(array[:, :rows] for array in arrays))
    zeros = tuple(vary_alike(jnp.zeros(one.shape, one.dtype), *arrays)[0] for one in like)
    return [total.sum(1) for total in lax.fori_loop(0, count // rows, add, zeros)]


def _moments_by_rows(x):
    mean = x.mean(1)
    (squares,) = _by_rows(lambda some: (jnp.square(some - mean[:, None]),), x)
    return mean, squares / x.shape[1]


def _sums_by_rows(x, g):
    return _by_rows(lambda x, g: (x * g, g), x, g)


means_p = primitive("means", _means, lambda avals, *, native, whole: _means_by_product)
moments_p = primitive("moments", _moments, _on_cpu(_moments, _moments_by_rows, _native.moments), multiple=True)
affine_p = primitive("affine", _affine, lambda avals, *, native, whole: _affine)  # XLA fuses it with what stands around
sums_p = primitive("channel_sums", _sums, _on_cpu(_sums, _sums_by_rows, _native.sums), multiple=True)


def _means_transpose(ct, x, **how):
    count = x.aval.shape[1]
    return [jnp.broadcast_to(ct[:, None] / count, x.aval.shape)]


def _moments_jvp(primals, tangents, **how):
    (x,), (dx,) = primals, tangents
    mean, var = moments_p.bind(x, **how)
    return (mean, var), (dx.mean(1), 2 * ((x - mean[:, None]) * dx).mean(1))


def _affine_jvp(primals, tangents, **how):
    x, gain, _ = primals
    dx, *moved = tangents
    terms = [] if isinstance(dx, ad.Zero) else [dx * gain[:, None]]
    if not all(isinstance(one, ad.Zero) for one in moved):
        terms.append(affine_p.bind(x, *map(ad.instantiate_zeros, moved), **how))
    return affine_p.bind(*primals, **how), functools.reduce(operator.add, terms)


def _affine_transpose(ct, x, *linear, **how):
    """Linear in gain and shift; where shift alone is asked for, x is not read."""
    ct = ad.instantiate_zeros(ct)
    found = sums_p.bind(x if ad.is_undefined_primal(linear[0]) else ct, ct, **how)
    return None, *(total if ad.is_undefined_primal(one) else None for one, total in zip(linear, found, strict=True))


def _sums_jvp(primals, tangents, **how):
    x, g = primals
    dx, dg = tangents
    found = sums_p.bind(x, g, **how)
    products, total = sums_p.bind(x, ad.instantiate_zeros(dg), **how)
    return found, [products if isinstance(dx, ad.Zero) else products + (dx * g).sum(1), total]


def _sums_transpose(cts, x, g, **how):
    """Linear in g."""
    return None, affine_p.bind(x, *map(ad.instantiate_zeros, cts), **how)


ad.deflinear2(means_p, _means_transpose)
ad.primitive_jvps[moments_p] = _moments_jvp
ad.primitive_jvps[affine_p] = _affine_jvp
ad.primitive_jvps[sums_p] = _sums_jvp
ad.primitive_transposes[affine_p] = _affine_transpose
ad.primitive_transposes[sums_p] = _sums_transpose
