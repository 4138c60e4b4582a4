"""Convolution with explicit padding and groups."""

from collections.abc import Callable

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
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=pair(stride),
        padding=padding_pairs(padding),
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


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
