"""Images per second of the host pipeline beside its parts and its rivals, side by side in one run.

    uv run python -m benchmarks.input_pipeline [--dir DIR] [--rounds 7] [--no-rivals]

On first use writes 2,000 JPEGs (benchmarks.photos) into --dir. Each contender is a process of its own
that lives through all rounds; in a round each one in turn makes as many 224x224 uint8 crops in batches,
on two cores. PyTorch and TensorFlow live in environments of their own, which `uv run --with` builds (2 GB).
Figures are medians over rounds, ratios medians of each round's ratio to the first contender, memory is each
process's peak.
"""

import argparse
import os
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import photos
from benchmarks.contender import compare, serve

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
    from cnn_jax.data.host import HostBatches, read_ahead
    from cnn_jax.data.order import epoch_order

    dataset = open_dataset("photos", "train", folder)
    rows = np.concatenate([epoch_order(0, time, len(dataset), BATCH) for time in range(100)])
    return read_ahead(HostBatches(dataset, view(), rows, (0, 0)), THREADS)


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


def main(folder: Path, rounds: int, rivals: bool) -> None:
    """Prepares, runs the rounds, prints the table."""
    if not (folder / "photos" / "1.0.0" / "dataset_info.json").exists():
        photos.prepare(folder, 2000)
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
    print(compare(commands, rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("runs/photos"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--contender", choices=("bare", "pipeline"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contender(options.contender, str(options.dir))
    else:
        main(options.dir, options.rounds, not options.no_rivals)
