"""Images per second of the host pipeline beside its parts and its rivals, side by side in one run.

    uv run python -m benchmarks.input_pipeline [--dir DIR] [--rounds 7] [--no-rivals]
    uv run python -m benchmarks.input_pipeline --boundary [--threads 2] [--batch 1024]

On first use writes 2,000 JPEGs (benchmarks.photos) into --dir. Each contender is a process of its own
that lives through all rounds; in a round each one in turn makes as many 224x224 uint8 crops in batches,
on two cores. PyTorch and TensorFlow live in environments of their own, which `uv run --with` builds (2 GB).
Figures are medians over rounds, ratios medians of each round's ratio to the first contender, memory is each
process's peak. --boundary: what passes between an epoch's last batch and the next epoch's first, with a test
of a tenth of the images between them, in large batches, and the peak of memory.
"""

import argparse
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import photos
from benchmarks.contender import compare, memory_mb, serve
from benchmarks.report import command_line, write_rates

BATCH, BATCHES, THREADS = 64, 30, 2
OWN = (sys.executable, "-m", "benchmarks.input_pipeline", "--contender")
WITH = ("uv", "run", "--no-project", "--python", "3.11")
RIVALS = {
    "torch DataLoader, 2 workers, PIL": (
        *WITH, "--with", "torch", "--with", "torchvision", "python", "-m", "benchmarks.input_torch",
    ),
    "tf.data, fused decode and crop": (
        *WITH, "--with", "tensorflow-cpu", "python", "-m", "benchmarks.input_tf_data",
    ),
}  # fmt: skip


def batches(folder: str):
    """Batches of the host pipeline, as an epoch of a large set has them: this one, many times over."""
    from cnn_jax.data import open_dataset
    from cnn_jax.data.host import HostBatches, HostChunks
    from cnn_jax.data.order import epoch_order

    dataset = open_dataset("photos", "train", folder)
    rows = np.concatenate([epoch_order(0, time, len(dataset), BATCH) for time in range(100)])
    return HostBatches(HostChunks(dataset, view(), rows, (224, 224, 3), (0, 0)), THREADS)


def boundary(folder: str, batch: int, threads: int) -> str:
    """An epoch of two batches, a test, and the first batch of the next epoch, as train.py has them."""
    from cnn_jax.data import open_dataset
    from cnn_jax.data.engines import FromHost
    from cnn_jax.data.order import evaluation_order
    from cnn_jax.sharding import data_mesh, split

    sets = {kind: open_dataset("photos", kind, folder) for kind in ("train", "test")}
    train, test = (FromHost(of, view(), 224, split=split(data_mesh(batch)), threads=threads) for of in sets.values())
    rows = np.arange(40 * batch, dtype=np.int32).reshape(40, batch) % len(sets["train"])
    every_image, _ = evaluation_order(len(sets["test"]), batch)
    for _ in train.batches(rows[:2], 0):
        pass
    end = time.perf_counter()
    train.begin(rows, 1)
    for _ in test.batches(every_image, 0):
        pass
    tested = time.perf_counter()
    following = train.batches(rows, 1)
    next(following)
    first = time.perf_counter()
    memory = memory_mb(os.getpid())
    following.close()
    return (
        f"{first - end:.2f} s from an epoch's last batch to the next one's first, {first - tested:.2f} s of them after "
        f"the test of {len(sets['test'])} images; at most {memory:,.0f} MB (batches of {batch}, {threads} threads)"
    )


def view():
    """A random-resized crop to 224 pixels."""
    from cnn_jax.data.crops import random_resized_box
    from cnn_jax.data.views import random_part

    return partial(random_part, size=224, box=random_resized_box)


def bare(folder: str):
    """Decoding and cropping alone, by two threads, of files that lie in memory."""
    from cnn_jax.data import open_dataset

    dataset = open_dataset("photos", "train", folder)
    files = [image for image, _ in dataset.read(range(1000))]
    crop = view()

    def work(batches: int) -> int:
        todo = iter(range(BATCH * batches))

        def some() -> None:
            for index in todo:  # one step of an iterator is whole between threads
                crop(files[index % len(files)], 3, (0, 0, index))

        threads = [threading.Thread(target=some) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return BATCH * batches

    return work


def contender(kind: str, folder: str) -> None:
    """Runs one of our own two sides in this process."""
    import cv2

    cv2.setNumThreads(0)
    if kind == "bare":
        serve(bare(folder), BATCHES)
    made = batches(folder)
    serve(lambda count: sum(len(next(made)["label"]) for _ in range(count)), BATCHES)


def main(out: Path, folder: Path, rounds: int, rivals: bool) -> None:
    """Runs the rounds, writes the report."""
    files = folder / "files"
    if rivals and not files.exists():
        photos.write_folder(files, 2000)
    commands = {
        "bare decode and crop, 2 threads": (*OWN, "bare", "--dir", str(folder)),
        "cnn_jax, 2 threads": (*OWN, "pipeline", "--dir", str(folder)),
    }
    if rivals:
        arguments = (str(files), str(BATCH), str(BATCHES), str(THREADS))
        commands |= {name: (*command, *arguments) for name, command in RIVALS.items()}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])  # the contenders inherit it
    write_rates(out, "input_pipeline", "Crops of 224 pixels from JPEGs", compare(commands, rounds))


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--dir", type=Path, default=Path("runs/photos"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--boundary", action="store_true")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--contender", choices=("bare", "pipeline"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contender(options.contender, str(options.dir))
        sys.exit()
    if not (options.dir / "photos" / "1.0.0" / "dataset_info.json").exists():
        photos.prepare(options.dir, 2000)
    if options.boundary:
        print(boundary(str(options.dir), options.batch, options.threads))
    else:
        main(options.out, options.dir, options.rounds, not options.no_rivals)
