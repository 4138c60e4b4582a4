"""Chains of layers side by side: what every Inception module is made of."""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers.blocks import ConvBN
from cnn_jax.layers.conv import IntPair, pair


@dataclass(frozen=True)
class Unit:
    """A convolution in a chain; without `padding` it is padded by half its kernel."""

    features: int
    size: IntPair = 1
    stride: int = 1
    padding: int | None = None


Step = Unit | Callable[[jax.Array], jax.Array] | tuple[Unit, ...]
Chain = tuple[Step, ...]


def branches(x: jax.Array, chains: tuple[Chain, ...], conv: Callable[..., nn.Module], *, train: bool) -> jax.Array:
    """Each chain on (B, H, W, C), their outputs concatenated: (B, H', W', sum of features).

    A step of a chain is a Unit, built by `conv`; a function of the chain's output, such as a
    pool; or several units side by side, concatenated. To be called inside a compact module,
    where the convolutions are named `branch2_conv1` and, side by side, `branch2_conv2a`,
    `branch2_conv2b`.
    """
    outputs = []
    for i, chain in enumerate(chains, start=1):
        y, j = x, 0
        for step in chain:
            if isinstance(step, Unit):
                j, units = j + 1, (("", step),)
            elif isinstance(step, tuple):
                j, units = j + 1, tuple(zip("abcdefgh"[: len(step)], step, strict=True))
            else:
                y = step(y)
                continue
            parts = []
            for letter, unit in units:
                half = tuple((size // 2, size // 2) for size in pair(unit.size))
                padding = half if unit.padding is None else unit.padding
                layer = conv(unit.features, unit.size, unit.stride, padding, name=f"branch{i}_conv{j}{letter}")
                parts.append(layer(y, train=train))
            y = jnp.concatenate(parts, axis=-1)
        outputs.append(y)
    return jnp.concatenate(outputs, axis=-1)


class Inception(nn.Module):
    """Branches, concatenated (Szegedy 2014, 1409.4842, fig. 2b). (B, H, W, C) -> (B, H', W', sum of features).

    `se` gates the result, as in Hu 2018 (1709.01507), fig. 2.
    """

    chains: tuple[Chain, ...]
    se: Callable[..., nn.Module] | None = None
    conv: Callable[..., nn.Module] = ConvBN

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = branches(x, self.chains, self.conv, train=train)
        return x if self.se is None else self.se(name="se")(x)
