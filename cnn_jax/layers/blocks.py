"""Small compositions that many families use."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers.conv import Conv, IntPair, Padding
from cnn_jax.layers.norm import BatchNorm
from cnn_jax.layers.pool import global_avg_pool


class ConvBN(nn.Module):
    """Convolution without bias -> batch norm -> activation, (B, H, W, C) -> (B, H', W', features).

    `act=None` leaves the activation out (a residual branch's last layer, MobileNet v2's linear
    projection). `norm` is a batch-norm constructor, for another epsilon or a group size.
    """

    features: int
    kernel_size: IntPair
    stride: IntPair = 1
    padding: Padding = 0
    groups: int = 1
    act: Callable | None = nn.relu
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            self.padding,
            self.groups,
            use_bias=False,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = self.norm(dtype=self.dtype, name="norm")(x, train=train)
        return x if self.act is None else self.act(x)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all channels' means (Hu 2018, 1709.01507, eq. 2-4).

    (B, H, W, C) -> (B, H, W, C): mean over positions -> `reduce` to `hidden` -> `act` ->
    `expand` to C -> `gate`. The paper's `hidden` is C // 16.
    """

    hidden: int
    act: Callable = nn.relu
    gate: Callable = nn.sigmoid
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        s = global_avg_pool(x)
        s = self.act(nn.Dense(self.hidden, dtype=self.dtype, name="reduce")(s))
        s = self.gate(nn.Dense(x.shape[-1], dtype=self.dtype, name="expand")(s))
        return x * s[:, None, None, :]
