"""What is known of a network without building it."""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn


@dataclass(frozen=True)
class ModelInfo:
    """One row of a family's table.

    `build(**options)` makes the linen module. `params` counts trainable parameters at the
    default options, `fixed` those that the paper sets by hand. `input_size` is (H, W, C).
    An image in [0, 1] enters the network as (image - mean) / std, per channel.
    """

    name: str
    build: Callable[..., nn.Module]
    summary: str
    paper: str
    year: int
    section: str
    params: int
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fixed: int = 0
    num_classes: int = 10
