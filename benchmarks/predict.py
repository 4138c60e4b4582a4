"""Photographs that are told a second, from files to names of classes, beside torch + timm on the same files.

    uv run python -m benchmarks.predict --torch-python PYTHON [--network resnet50] [--rounds 5]

On first use writes 1,000 JPEGs (benchmarks.photos) into --dir and breaks every hundredth: ten are cut short, and both
sides leave them out. Each contender is a process of its own; in a round each one in turn goes through all files, on
two cores. Weights are drawn, the preprocessing is that of --tag. "cnn_jax" is what `cnn-jax predict` does; "torch +
timm" is timm.create_model and create_transform behind a DataLoader with two workers, in inference mode and
channels_last. Figures are medians over rounds, memory is the peak of the process and its workers. PYTHON has torch,
torchvision and timm.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks import photos
from benchmarks.contender import compare, serve, versions
from benchmarks.report import PACKAGES, command_line, write_rates

COUNT, BROKEN, BATCH, CORES = 1000, 100, 32, 2  # every BROKEN-th file is


def prepare(folder: Path) -> None:
    """Writes the files: a folder for each class, some of them cut short."""
    photos.write_folder(folder, COUNT)
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        if number % BROKEN == 0:
            path.write_bytes(path.read_bytes()[:20_000])


def ours(folder: str, network: str, tag: str) -> None:
    """Our side: serves rounds, each of all files."""
    import jax

    from cnn_jax import create_model, fold_batch_norm, predict, preprocess
    from cnn_jax.data.folder import image_files

    model, seen = create_model(network), preprocess(tag)
    blank = jax.numpy.zeros((1, *seen.size, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(0), blank, train=False))()
    model, variables = fold_batch_norm(model, variables)
    paths = image_files(folder)

    def work(rounds: int) -> int:
        broken: list[str] = []
        told = 0
        for _ in range(rounds):
            found = predict(model, variables, paths, seen, batch_size=BATCH, on_bad=lambda _, why: broken.append(why))
            told += sum(1 for _ in found)
        assert (told + len(broken), len(broken)) == (rounds * len(paths), rounds * len(paths) // BROKEN)
        return told

    serve(work, 1, lead=0, facts={"versions": versions(*PACKAGES)})


def main() -> int:
    """Runs the rounds, writes the report; returns the exit code."""
    parser = command_line(__doc__)
    parser.add_argument("--torch-python", metavar="PYTHON", help="without it there is no rival")
    parser.add_argument("--network", default="resnet50", help="a name that timm has, too")
    parser.add_argument("--tag", default="resnet50.tv_in1k", help="of the preprocessing")
    parser.add_argument("--dir", type=Path, default=Path("runs/predicted"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contender", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    what = (str(options.dir), options.network, options.tag)
    if options.contender:
        ours(*what)
        return 0
    if not options.dir.exists():
        prepare(options.dir)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # the contenders inherit it
    own = (sys.executable, "-m", "benchmarks.predict", "--contender", "--dir", what[0])
    commands = {"cnn_jax": (*own, "--network", what[1], "--tag", what[2])}
    if rival := options.torch_python:
        commands["torch + timm"] = (rival, "-m", "benchmarks.predict_torch", *what, str(BATCH), str(CORES))
    write_rates(options.out, "predict", f"Photographs told, {options.network}", compare(commands, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
