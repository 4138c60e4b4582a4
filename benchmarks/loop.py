"""What the loop of train.py costs in Python for each step of LeNet-5 on a set that lives on the device.

    uv run python -m benchmarks.loop

The loop without its files, around a step that computes nothing, less that step alone: medians of ROUNDS rounds in turn.
"""

import statistics
import time
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.data.loaders import open_loaders
from cnn_jax.data.order import Timeline
from cnn_jax.recipes import RECIPES
from cnn_jax.sharding import data_mesh
from cnn_jax.training.compiled import abstract_state, create_state
from cnn_jax.training.program import Program, evaluation_view
from cnn_jax.training.step import METRICS
from cnn_jax.training.watch import Watch

ROUNDS, EPOCHS = 9, 5


def main() -> None:
    """Prints microseconds a step."""
    config = RECIPES["lenet5_modern"]
    mesh = data_mesh(config.batch_size)
    train = open_loaders(config, mesh, **evaluation_view(config), engine="device")["train"]
    timeline = Timeline(len(train), config.batch_size, 10**6)
    program = Program(config, timeline, train.classes, train.channels, train.engine.crops)
    state = create_state(program, abstract_state(program, mesh))
    step = jax.jit(lambda index: jnp.zeros(len(METRICS)) * index[0])
    watch = Watch(unwritten(), timeline, SimpleNamespace(poll=lambda: False), state, train)
    one = next(train.epoch(0)).arrays["index"]

    def alone() -> Iterator[jax.Array]:
        running: deque[jax.Array] = deque()
        for _ in range(EPOCHS * timeline.steps_per_epoch):
            running.append(step(one))
            if len(running) > 2:
                jax.block_until_ready(running.popleft())
            yield running[-1]

    def loop() -> Iterator[jax.Array]:
        for epoch in range(EPOCHS):
            for batch in train.epoch(epoch):
                told = step(batch.arrays["index"])
                watch(state, told, batch)
                yield told

    spent: dict[Any, list[float]] = {alone: [], loop: []}
    for _ in range(ROUNDS):
        for what, seconds in spent.items():
            start, steps = time.perf_counter(), list(what())
            jax.block_until_ready(steps[-1])
            seconds.append((time.perf_counter() - start) / len(steps))
    bare, whole = (1e6 * statistics.median(seconds) for seconds in spent.values())
    print(f"a step that computes nothing {bare:.0f} us, in the loop {whole:.0f} us: {whole - bare:.0f} us are Python's")


def unwritten() -> Any:
    """A run's folder that writes nothing."""
    nothing = lambda *_, **__: None  # noqa: E731
    task = SimpleNamespace(trained=SimpleNamespace(key="top1"))
    log = SimpleNamespace(
        write=nothing, progress=nothing, skipped=nothing, epoch_line=nothing, tested="test", task=task
    )
    return SimpleNamespace(trace=SimpleNamespace(at=nothing), log=log, checkpoints=SimpleNamespace(poll=nothing))


if __name__ == "__main__":
    main()
