"""How images reach the step, on a set that fits a device: from the device, from the host, from plain grain.

    cnn-jax prepare fashion_mnist --data-dir DIR [--from-files FILES]
    uv run python -m benchmarks.small_set --dir DIR [--rounds 7]

All three train LeNet-5 (lenet5_modern) on Fashion-MNIST in batches of 64, as its recipe does, shuffled, without
augmentation, by the same compiled step but for its input. "grain" is what TFDS's guide shows: a grain.DataLoader
over tfds.data_source. Each is a process of its own that lives through all rounds; figures are medians, ratios
medians of each round's. Whole runs of train.py beside PyTorch are small_data's.
"""

import argparse
import itertools
import sys

from benchmarks.contender import compare, serve
from benchmarks.report import command_line, write_rates

BATCH, STEPS = 64, 100
NETWORK = "lenet5_modern"


def trainer(gather):
    """The function (state, batch) -> state of one training step, and a first state."""
    import jax

    from cnn_jax.compilation import jit_once
    from cnn_jax.data.order import Timeline
    from cnn_jax.recipes import Optimizer, Recipe, Schedule
    from cnn_jax.training.program import Program
    from cnn_jax.training.step import train_step

    config = Recipe(model=NETWORK, optimizer=Optimizer(lr=0.01), schedule=Schedule(kind="constant"))
    program = Program(config, Timeline(60_000, BATCH, epochs=1), classes=10, channels=1)
    step = jax.jit(lambda state, batch: train_step(program, state, gather(batch))[0], donate_argnums=0)
    return step, jit_once(program.init)(0)


def engine_batches(kind: str, folder: str):
    """Batches of one of our engines, without end, and what makes images of them."""
    from cnn_jax.data import open_dataset
    from cnn_jax.data.engines import FromHost, OnDevice, gather
    from cnn_jax.data.order import epoch_order
    from cnn_jax.data.views import whole
    from cnn_jax.sharding import data_mesh, replicated, split

    dataset, mesh = open_dataset("fashion_mnist", "train", folder), data_mesh(BATCH)
    engine = (
        OnDevice(dataset, everywhere=replicated(mesh), split=split(mesh))
        if kind == "device"
        else FromHost(dataset, whole, 28, split=split(mesh))
    )

    def batches():
        for epoch in itertools.count():
            yield from engine.batches(epoch_order(0, epoch, len(dataset), BATCH), epoch)

    return batches(), gather


def grain_batches(folder: str):
    """As TFDS's guide has it: decoded one by one by tfds.data_source, shuffled and batched by grain."""
    import grain.python as grain
    import tensorflow_datasets as tfds

    source = tfds.data_source("fashion_mnist", split="train", data_dir=folder, download=False)
    loader = grain.DataLoader(
        data_source=source,
        sampler=grain.IndexSampler(len(source), shuffle=True, seed=0, shard_options=grain.NoSharding()),
        operations=[grain.Batch(BATCH, drop_remainder=True)],
    )
    return iter(loader), lambda batch: {"image": batch["image"], "label": batch["label"]}


def contender(kind: str, folder: str) -> None:
    """Trains on one of the three, a round at a time."""
    import jax

    batches, gather = grain_batches(folder) if kind == "grain" else engine_batches(kind, folder)
    step, state = trainer(gather)

    def work(steps: int) -> int:
        nonlocal state
        for batch in itertools.islice(batches, steps):
            state = step(state, batch)
        jax.block_until_ready(state.params)
        return BATCH * steps

    serve(work, STEPS)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--contender", choices=("device", "host", "grain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contender(options.contender, options.dir)
    else:
        own = (sys.executable, "-m", "benchmarks.small_set", "--dir", options.dir, "--contender")
        names = {"grain over tfds.data_source": "grain", "from the host": "host", "from the device": "device"}
        found = compare({name: (*own, kind) for name, kind in names.items()}, options.rounds)
        write_rates(options.out, "small_set", "LeNet-5 on Fashion-MNIST, batches of 64, trained", found)
