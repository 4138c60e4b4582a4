"""What a convolution is besides its arrays, and the convolution and its two gradients as JAX has them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.errors import UserError
from cnn_jax.layers.lowered import vary_alike

Pads = tuple[tuple[int, int], tuple[int, int]]


class TooSmall(UserError):
    """A map is smaller than the window that is moved over it."""


class Geometry(NamedTuple):
    """What a convolution is besides its arrays: (B, *size, C) with (*window, C // groups, O) -> (B, H', W', O).

    The taps of a window stand `dilation` pixels apart.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: Pads
    groups: int
    dilation: tuple[int, int] = (1, 1)

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels from the first to the last tap of a window, both counted."""
        (kh, kw), (dh, dw) = self.window, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @property
    def out(self) -> tuple[int, int]:
        """(H', W')."""
        sides = zip(self.size, self.reach, self.stride, self.padding, strict=True)
        height, width = ((size + sum(pads) - reach) // s + 1 for size, reach, s, pads in sides)
        return height, width

    def checked(self) -> "Geometry":
        """Itself; raises TooSmall if it has no place for a window."""
        if min(self.out) < 1:
            (height, width), (kh, kw) = self.size, self.reach
            raise TooSmall(f"a window of {kh}x{kw} finds no place in a map of {height}x{width}")
        return self

    @property
    def dense(self) -> bool:
        """Whether the window is the whole image: one matrix product, a fully connected layer."""
        return self.groups == 1 and self.window == self.size and self.padding == ((0, 0), (0, 0))


def shifted(x: jax.Array, geometry: Geometry) -> Iterator[tuple[tuple[int, int], jax.Array]]:
    """What each tap (i, j) of a window sees of padded images (B, H, W, C), row by row: (B, H', W', C)."""
    (sh, sw), (dh, dw), (height, width) = geometry.stride, geometry.dilation, geometry.out
    for i, j in np.ndindex(*geometry.window):
        top, left = i * dh, j * dw
        yield (i, j), x[:, top : top + (height - 1) * sh + 1 : sh, left : left + (width - 1) * sw + 1 : sw]


def plain_conv(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """Images (B, H, W, C), kernel (kh, kw, C // groups, O) -> (B, H', W', O)."""
    if geometry.dense:
        return jnp.tensordot(x, w, ((1, 2, 3), (0, 1, 2)))[:, None, None]
    return lax.conv_general_dilated(
        x,
        w,
        geometry.stride,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def plain_input_grad(g: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """A cotangent (B, H', W', O) of the output, kernel -> that of the images (B, H, W, C)."""
    return transposed(plain_conv, geometry, 0, g, w)


def plain_kernel_grad(x: jax.Array, g: jax.Array, geometry: Geometry) -> jax.Array:
    """Images, a cotangent of the output -> that of the kernel (kh, kw, C // groups, O)."""
    return transposed(plain_conv, geometry, 1, g, x)


def transposed(conv: Callable, geometry: Geometry, wanted: int, g: jax.Array, other: jax.Array) -> jax.Array:
    """The transpose of conv(x, w, geometry) in x (`wanted` 0; `other` is w) or in w (1; `other` is x)."""
    if wanted == 0:
        shape = (g.shape[0], *geometry.size, other.shape[2] * geometry.groups)
        linear = lambda x: conv(x, other, geometry)  # noqa: E731
    else:
        shape = (*geometry.window, other.shape[3] // geometry.groups, g.shape[3])
        linear = lambda w: conv(other, w, geometry)  # noqa: E731
    argument, *_ = vary_alike(jnp.zeros(shape, g.dtype), g, other)  # of which the type counts
    return jax.linear_transpose(linear, argument)(g)[0]


PLAIN = {"conv": plain_conv, "input_grad": plain_input_grad, "kernel_grad": plain_kernel_grad}
