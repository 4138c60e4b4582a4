"""Convolution with explicit padding and groups."""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import UserError

IntPair = int | tuple[int, int]
Padding = int | tuple[tuple[int, int], tuple[int, int]]


def pair(value: IntPair) -> tuple[int, int]:
    """`3 -> (3, 3)`; a pair stays as it is."""
    return (value, value) if isinstance(value, int) else value


def padding_pairs(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """`p -> ((p, p), (p, p))`, symmetric as in PyTorch; pairs (low, high) per axis stay."""
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def convolve(x: jax.Array, kernel: jax.Array, stride: IntPair = 1, padding: Padding = 0, groups: int = 1) -> jax.Array:
    """Cross-correlates (B, H, W, C) with a kernel (kh, kw, C // groups, C_out).

    The one place that decides how a platform computes a convolution. Output size per axis:
    (size + low + high - k) // stride + 1.
    """
    stride, padding = pair(stride), padding_pairs(padding)
    if groups == 1 and kernel.shape[:2] == x.shape[1:3] and padding == ((0, 0), (0, 0)):
        # The window is the whole image: one matrix product (a fully connected layer).
        return jnp.tensordot(x, kernel, ((1, 2, 3), (0, 1, 2)))[:, None, None]
    form = partial(_general, stride=stride, padding=padding, groups=groups)
    if groups > 1:
        own = _depthwise if kernel.shape[2] == 1 and groups == kernel.shape[3] else _grouped
    elif kernel.shape[:2] == (1, 1):
        own = _pointwise
    else:
        return form(x, kernel)
    # XLA's CPU convolution is 2 to 30 times slower than these on grouped and 1x1 kernels.
    return lax.platform_dependent(
        x, kernel, cpu=partial(own, stride=stride, padding=padding, groups=groups), default=form
    )


def _general(x, kernel, *, stride, padding, groups):
    return lax.conv_general_dilated(
        x, kernel, stride, padding, feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pointwise(x, kernel, *, stride, padding, groups):
    """A 1x1 convolution as a matrix product over channels."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))[:, :: stride[0], :: stride[1]]
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def _depthwise(x, kernel, *, stride, padding, groups):
    """A depthwise convolution as a sum of shifted products."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (kh, kw), (sh, sw) = kernel.shape[:2], stride
    height, width = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    return sum(
        x[:, i : i + (height - 1) * sh + 1 : sh, j : j + (width - 1) * sw + 1 : sw] * kernel[i, j, 0]
        for i in range(kh)
        for j in range(kw)
    )


def _grouped(x, kernel, *, stride, padding, groups):
    """A grouped convolution as dense ones over about 64 channels each, zeros between the groups."""
    kh, kw, width, features = kernel.shape
    merged = math.gcd(groups, max(1, 64 // width))  # groups made dense together
    parts = groups // merged
    kernel = kernel.reshape(kh, kw, 1, width, parts, merged, features // groups)
    kernel = kernel * jnp.eye(merged, dtype=kernel.dtype)[:, None, None, :, None]
    kernel = kernel.reshape(kh, kw, merged * width, parts, merged * features // groups)
    pieces = [
        _general(piece, kernel[..., i, :], stride=stride, padding=padding, groups=1)
        for i, piece in enumerate(jnp.split(x, parts, axis=-1))
    ]
    return jnp.concatenate(pieces, axis=-1)


class Conv(nn.Module):
    """2-D convolution, (B, H, W, C) -> (B, H', W', features), with padding said in pixels.

    Parameters are float32: `kernel` (kh, kw, C // groups, features), the layout of a PyTorch
    weight transposed by (2, 3, 1, 0), depthwise included; `bias` (features,). Padding is never
    "SAME": on even sizes with stride 2 that shifts the image by a pixel against PyTorch.

    Raises:
      UserError: C or `features` does not divide by `groups`.
    """

    features: int
    kernel_size: IntPair
    stride: IntPair = 1
    padding: Padding = 0
    groups: int = 1
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.he_normal()  # He 2015 (1502.01852), sec. 2.2
    bias_init: Callable = nn.initializers.zeros_init()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        if channels % self.groups or self.features % self.groups:
            raise UserError(
                f"{channels} input and {self.features} output channels must both divide by groups={self.groups}"
            )
        shape = (*pair(self.kernel_size), channels // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            self.stride,
            self.padding,
            self.groups,
        )
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype)
        return x
