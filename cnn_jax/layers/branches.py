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
    """A convolution in a chain, named by its role; without `padding` it is padded by half its kernel."""

    name: str
    features: int
    size: IntPair = 1
    stride: int = 1
    padding: int | None = None


Step = Unit | Callable[[jax.Array], jax.Array] | tuple[Unit, ...]
Chain = tuple[Step, ...]


def branches(x: jax.Array, chains: tuple[Chain, ...], conv: Callable[..., nn.Module], *, train: bool) -> jax.Array:
    """Each chain on (B, H, W, C), their outputs concatenated: (B, H', W', sum of features).

    A step of a chain is a Unit, built by `conv`; several units side by side, concatenated; or a function of
    the chain's output, such as a pool. To be called inside a compact module. In all networks the units are named
    by the window that their branch is for: `one`, `three`, `five`, `seven`, or `double` for two in a row; a 1x1
    before it is `three_reduce`, the parts of a window `seven_row` (1x7) and `seven_column` (7x1), and the 1x1
    behind a pool `pool_proj`.
    """
    outputs = []
    for chain in chains:
        y = x
        for step in chain:
            if not isinstance(step, Unit | tuple):
                y = step(y)
                continue
            parts = []
            for unit in (step,) if isinstance(step, Unit) else step:
                half = tuple((size // 2, size // 2) for size in pair(unit.size))
                padding = half if unit.padding is None else unit.padding
                parts.append(conv(unit.features, unit.size, unit.stride, padding, name=unit.name)(y, train=train))
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
