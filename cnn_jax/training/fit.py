"""What memory a training step takes, by compiling it ahead of time; nothing is computed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from cnn_jax.data.engines import device_memory
from cnn_jax.data.order import Timeline
from cnn_jax.errors import UserError
from cnn_jax.models import model_info
from cnn_jax.recipes import Recipe
from cnn_jax.tables import aligned
from cnn_jax.tasks import image_size
from cnn_jax.training.compiled import abstract_state
from cnn_jax.training.program import Program
from cnn_jax.training.step import train_step

CLOSE = 1 / 16  # a batch this near to the largest one will do
MOST = 1_000_000  # images a step, of any recipe
TOO_MUCH = 2**60  # bytes, of a program that a TPU's compiler refuses


@dataclass(frozen=True)
class Memory:
    """Bytes on one device in a step of `batch_size` images, as XLA plans them.

    `state` is parameters, statistics, optimiser and averages; `batch` the images and labels;
    `work` activations, gradients and whatever else lives within the step.
    """

    batch_size: int
    state: int
    batch: int
    work: int

    @property
    def total(self) -> int:
        """All together."""
        return self.state + self.batch + self.work


def step_memory(config: Recipe, channels: int = 3, classes: int = 1000) -> Memory:
    """The memory of a training step of `config` on one device, its state donated, as train.py compiles it.

    Raises:
      UserError: the network does not take images of that size; the platform plans no memory.
    """
    timeline = Timeline(size=config.batch_size, batch_size=config.batch_size, epochs=config.epochs)
    program = Program(config, timeline, classes, channels, cropped=True)
    images = jax.ShapeDtypeStruct((config.batch_size, *program.size, channels), np.uint8)
    batch = {"image": images, "label": jax.ShapeDtypeStruct((config.batch_size,), np.int32)}
    lowered = jax.jit(partial(train_step, program), donate_argnums=0).lower(abstract_state(program), batch)
    try:
        planned: Any = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Memory(config.batch_size, 0, 0, TOO_MUCH)
    if planned is None:
        raise UserError(f"{jax.default_backend()} does not tell what memory a program takes")
    arrays = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in batch.values())
    # What is donated is reused, so outputs that alias arguments are there once.
    new = planned.output_size_in_bytes - planned.alias_size_in_bytes
    return Memory(
        config.batch_size,
        planned.argument_size_in_bytes - arrays,
        arrays,
        planned.temp_size_in_bytes + max(new, 0),
    )


def largest_batch(measure: Callable[[int], Memory], first: Memory, limit: int, multiple: int = 1) -> Memory | None:
    """The step of the largest batch of at most `limit` bytes, to within a sixteenth; None if not even `multiple` fits.

    Memory is nearly a straight line over the batch, so a few compilations find it. Batches are
    multiples of `multiple`, and of 8 from 64 on.
    """

    def rounded(size: float) -> int:
        unit = math.lcm(multiple, 8 if size >= 64 else 1)
        return max(int(size) // unit * unit, multiple)

    tried = {first.batch_size: first}

    def fits(batch_size: int) -> bool:
        if batch_size not in tried:
            tried[batch_size] = measure(batch_size)
        return tried[batch_size].total <= limit

    low, high = (first.batch_size, math.inf) if fits(first.batch_size) else (0, first.batch_size)
    while high - low > max(CLOSE * low, multiple):
        guess = _on_the_line(list(tried.values()), limit) or (2 * low if low else high / 2)
        guess = rounded(min(max(guess, low + 1), 8 * (low or high), MOST))
        if guess >= high:
            guess = rounded((low + high) / 2)
        if guess in tried:
            break
        low, high = (guess, high) if fits(guess) else (low, guess)
    return tried[low] if low else None


def _on_the_line(tried: list[Memory], limit: int) -> float | None:
    """Where the line through the two largest of `tried` meets `limit`."""
    if len(tried) < 2:
        return None
    small, large = sorted(tried, key=lambda memory: memory.batch_size)[-2:]
    slope = (large.total - small.total) / (large.batch_size - small.batch_size)
    return small.batch_size + (limit - small.total) / slope if slope > 0 else None


def with_batch(config: Recipe, batch_size: int) -> Recipe:
    """The recipe with another batch size, and groups of batch norm that it divides into."""
    group = config.bn_group_size
    parts = batch_size // config.optimizer.accumulate
    return replace(config, batch_size=batch_size, bn_group_size=None if group is None else math.gcd(group, parts))


def report(config: Recipe, limit: int | None = None, tell: Callable[[str], None] = lambda line: None) -> str:
    """What a step of `config` takes, and the largest batch for `limit` bytes of memory (the device's if None).

    `tell` is called before each compilation, which may take a minute.

    Raises:
      UserError: the device does not say how much memory it has, and no limit is given; step_memory's.
    """
    device = jax.local_devices()[0]
    limit = limit or device_memory()
    if not limit:
        raise UserError(f"{device.device_kind} does not say how much memory it has; --memory GIB does")
    info = model_info(config.model)

    def measure(batch_size: int) -> Memory:
        tell(f"compiling a step of {batch_size} images")
        return step_memory(with_batch(config, batch_size), info.input_size[2], info.num_classes)

    height, width = image_size(config)
    first = measure(config.batch_size)
    best = largest_batch(measure, first, limit, config.optimizer.accumulate)
    rows = [("images a step", "state MiB", "images MiB", "work MiB", "total GiB")]
    for memory in dict.fromkeys(tried for tried in (first, best) if tried and tried.work < TOO_MUCH):
        parts = (f"{part / 2**20:,.1f}" for part in (memory.state, memory.batch, memory.work))
        rows.append((str(memory.batch_size), *parts, f"{memory.total / 2**30:,.2f}"))
    fits = "fit" if first.total <= limit else "do not fit"
    found = f"the largest batch is {best.batch_size}" if best else "no batch fits"
    return (
        f"{config.model}, a training step on images of {height}x{width}: {config.optimizer.kind}, {config.dtype}, "
        f"compiled for one {device.device_kind}\n{aligned(rows)}\n"
        f"{config.batch_size} images {fits} into {limit / 2**30:,.2f} GiB; {found}"
    )
