"""Convolution with explicit padding and groups."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.layers import primitives
from cnn_jax.layers.channels import add_bias
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


def same_padding(x: jax.Array, window: IntPair, stride: IntPair) -> Pads:
    """TensorFlow's "SAME" for windows over (B, H, W, C): outputs of ceil(size / stride), an odd pixel of padding last.

    For layers whose weights come from TensorFlow and for no others: on even sizes with stride 2 it is not symmetric.
    """
    pads = []
    for size, k, s in zip(x.shape[1:3], pair(window), pair(stride), strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads.append((total // 2, total - total // 2))
    return pads[0], pads[1]


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: IntPair = 1,
    padding: Padding = 0,
    groups: int = 1,
    dilation: IntPair = 1,
) -> jax.Array:
    """Cross-correlates (B, H, W, C) with a kernel (kh, kw, C // groups, C_out).

    The kernel's taps stand `dilation` pixels apart, so that it reaches over r = dilation * (k - 1) + 1. Output size
    per axis: (size + low + high - r) // stride + 1. How it and its gradients are computed is
    the platform's, see `lowering`. bfloat16 accumulates in float32.

    Raises:
      TooSmall: that is 0 or less.
    """
    size, window = (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1])
    geometry = Geometry(size, window, pair(stride), padding_pairs(padding), groups, pair(dilation)).checked()
    if (kind := chosen()) == "xla":
        return plain_conv(x, kernel, geometry)
    x, kernel = vary_alike(x, kernel)
    return primitives.conv(x, kernel, geometry, native=kind == "auto")


def space_to_depth(x: jax.Array, block: tuple[int, int]) -> jax.Array:
    """(B, H, W, C) -> (B, H / h, W / w, h * w * C) for blocks of (h, w): rows of a block first, channels last."""
    (batch, height, width, channels), (h, w) = x.shape, block
    x = x.reshape(batch, height // h, h, width // w, w, channels).swapaxes(2, 3)
    return x.reshape(batch, height // h, width // w, h * w * channels)


def convolve_blocks(x: jax.Array, kernel: jax.Array, stride: IntPair, padding: Padding) -> jax.Array:
    """`convolve` with each block of `stride` pixels as one pixel of more channels: the same sums, without a stride.

    The 3 channels of an image fill few rows of a TPU's matrix unit: of 7x7, stride 2, this makes 4x4 over 12 channels,
    as the ResNet-50 of MLPerf has it on TPUs. The kernel stays what it is, at its borders with zeros.
    """
    stride, pads = pair(stride), padding_pairs(padding)
    around, inside, seen = [], [], []
    for size, k, s, (low, high) in zip(x.shape[1:3], kernel.shape[:2], stride, pads, strict=True):
        out = (size + low + high - k) // s + 1
        first = -low % s  # zeros before the kernel, so that it begins with a block
        blocks = -(-(first + k) // s)
        inside.append((first, blocks * s - first - k))
        around.append((low + first, max(0, (out - 1 + blocks) * s - low - first - size)))
        seen.append((out - 1 + blocks) * s)
    x = jnp.pad(x, [(0, 0), *around, (0, 0)])[:, : seen[0], : seen[1]]
    kernel = jnp.pad(kernel, [*inside, (0, 0), (0, 0)])
    kernel = space_to_depth(kernel.transpose(3, 0, 1, 2), stride).transpose(1, 2, 3, 0)
    return convolve(space_to_depth(x, stride), kernel)


class Conv(nn.Module):
    """2-D convolution, (B, H, W, C) -> (B, H', W', features), with padding said in pixels.

    Parameters are float32: `kernel` (kh, kw, C // groups, features), the layout of a PyTorch
    weight transposed by (2, 3, 1, 0), depthwise included; `bias` (features,). Padding is never
    "SAME": on even sizes with stride 2 that shifts the image by a pixel against PyTorch.
    `dilation` sets the kernel's taps that many pixels apart. `by_blocks` computes the same by `convolve_blocks`.

    Raises:
      UserError: C or `features` does not divide by `groups`; groups or dilation by blocks.
    """

    features: int
    kernel_size: IntPair
    stride: IntPair = 1
    padding: Padding = 0
    groups: int = 1
    dilation: IntPair = 1
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.he_normal()  # He 2015 (1502.01852), sec. 2.2
    bias_init: Callable = nn.initializers.zeros_init()
    by_blocks: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        if self.by_blocks and (self.groups > 1 or pair(self.dilation) != (1, 1)):
            raise UserError("a convolution with groups or a dilation is not computed by blocks")
        if channels % self.groups or self.features % self.groups:
            raise UserError(
                f"{channels} input and {self.features} output channels must both divide by groups={self.groups}"
            )
        shape = (*pair(self.kernel_size), channels // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.by_blocks:
            x = convolve_blocks(x, kernel, self.stride, self.padding)
        else:
            x = convolve(x, kernel, self.stride, self.padding, self.groups, self.dilation)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            x = add_bias(x, bias.astype(self.dtype))
        return x
