"""Pooling with explicit padding and PyTorch's and Caffe's ceil mode."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.layers.channels import means
from cnn_jax.layers.conv import IntPair, Padding, padding_pairs, pair
from cnn_jax.layers.geometry import Geometry
from cnn_jax.layers.options import GlobalPool
from cnn_jax.layers.windows import window_max, window_sum


def _window_pads(size: int, k: int, s: int, low: int, high: int, ceil_mode: bool) -> int:
    """The padding after the last pixel that makes the windows of PyTorch's output size fit.

    Ceil mode keeps a last, partial window unless it would start beyond the image and its left
    padding (torch.nn.MaxPool2d, "ceil_mode").
    """
    if not ceil_mode:
        return high
    out = -(-(size + low + high - k) // s) + 1
    if (out - 1) * s >= size + low:
        out -= 1
    return max(high, (out - 1) * s + k - size - low)


def _geometry(
    x: jax.Array, window: IntPair, stride: IntPair | None, padding: Padding, ceil_mode: bool
) -> tuple[Geometry, list[int]]:
    """The windows, and what padding was asked for after the last pixel of each axis; ceil mode may add to that."""
    window, (_, height, width, channels) = pair(window), x.shape
    stride, pads = window if stride is None else pair(stride), padding_pairs(padding)
    top, left = (
        (low, _window_pads(size, k, s, low, high, ceil_mode))
        for size, k, s, (low, high) in zip((height, width), window, stride, pads, strict=True)
    )
    return Geometry((height, width), window, stride, (top, left), channels).checked(), [high for _, high in pads]


def max_pool(
    x: jax.Array,
    window: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
) -> jax.Array:
    """Maximum over windows of (B, H, W, C); padding counts as -inf.

    `stride` defaults to the window. With `ceil_mode` the output size is
    ceil((size + padding - k) / stride) + 1, as in Caffe.
    """
    geometry, _ = _geometry(x, window, stride, padding, ceil_mode)
    return window_max(x, geometry)


def avg_pool(
    x: jax.Array,
    window: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """Mean over windows of (B, H, W, C).

    With `count_include_pad` the zeros that `padding` asks for count in the mean (torchvision's
    Inception v3), without it only real pixels do (TensorFlow's). What ceil mode adds beyond the
    padding never counts, as in PyTorch.
    """
    geometry, asked = _geometry(x, window, stride, padding, ceil_mode)
    sums = window_sum(x, geometry)
    counts = []
    for size, k, s, (low, _), out, high in zip(*geometry[:4], geometry.out, asked, strict=True):
        start = np.arange(out) * s - low
        first, last = (-low, size + high) if count_include_pad else (0, size)
        counts.append(np.minimum(start + k, last) - np.maximum(start, first))
    return sums / np.outer(*counts)[None, :, :, None].astype(x.dtype)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over all positions, (B, H, W, C) -> (B, C)."""
    batch, height, width, channels = x.shape
    return means(x.reshape(batch, height * width, channels))


def global_pool(x: jax.Array, kind: GlobalPool) -> jax.Array:
    """(B, H, W, C) -> (B, C): over all positions their mean, maximum or, "avgmax", the mean of both; "" leaves the map.

    The words are timm's.
    """
    if kind == "":
        return x
    if kind == "avg":
        return global_avg_pool(x)
    most = x.max((1, 2))
    return most if kind == "max" else (global_avg_pool(x) + most) / 2


def adaptive_avg_pool(x: jax.Array, output_size: IntPair) -> jax.Array:
    """Mean over windows floor(i*H/o) .. ceil((i+1)*H/o), (B, H, W, C) -> (B, oh, ow, C).

    The identity where the size already fits, as AlexNet's 6x6 and VGG's 7x7 do at 224 pixels.
    """
    for axis, (size, out) in enumerate(zip(x.shape[1:3], pair(output_size), strict=True), start=1):
        if size == out:
            continue
        weights = np.zeros((out, size))
        for i in range(out):
            start, stop = i * size // out, -(-(i + 1) * size // out)
            weights[i, start:stop] = 1 / (stop - start)
        x = jnp.moveaxis(
            jnp.tensordot(weights.astype(x.dtype), x, axes=(1, axis), precision=lax.Precision.HIGHEST), 0, axis
        )
    return x
