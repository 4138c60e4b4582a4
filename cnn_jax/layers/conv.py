"""Convolution with explicit padding and groups."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.layers import primitives
from cnn_jax.layers.geometry import Geometry, Pads, plain_conv
from cnn_jax.layers.lowered import chosen, vary_alike

IntPair = int | tuple[int, int]
Padding = int | Pads


def pair(value: IntPair) -> tuple[int, int]:
    """`3 -> (3, 3)`; a pair stays as it is."""
    return (value, value) if isinstance(value, int) else value


def padding_pairs(padding: Padding) -> Pads:
    """`p -> ((p, p), (p, p))`, symmetric as in PyTorch; pairs (low, high) per axis stay."""
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def convolve(x: jax.Array, kernel: jax.Array, stride: IntPair = 1, padding: Padding = 0, groups: int = 1) -> jax.Array:
    """Cross-correlates (B, H, W, C) with a kernel (kh, kw, C // groups, C_out).

    Output size per axis: (size + low + high - k) // stride + 1. How it and its gradients are computed is
    the platform's, see `lowering`. bfloat16 accumulates in float32.

    Raises:
      TooSmall: that is 0 or less.
    """
    size, window = (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1])
    geometry = Geometry(size, window, pair(stride), padding_pairs(padding), groups).checked()
    if (kind := chosen()) == "xla":
        return plain_conv(x, kernel, geometry)
    x, kernel = vary_alike(x, kernel)
    return primitives.conv(x, kernel, geometry, native=kind == "auto")


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
