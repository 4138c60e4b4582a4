"""Whole runs on a set that lives on the device: train.py beside PyTorch's best loop, in turn.

    uv run python -m benchmarks.small_data --torch-python PYTHON [--networks NAME ...] [--batch 128] [--epochs N]
        [--rounds 3] [--contenders ours,torch,compile] [--dataset fashion_mnist --dir DIR]

All train the same network on mnist_5k's 4,000 images without augmentation, resident as float32 for PyTorch, and test
it on 1,000 after each epoch: SGD with momentum, weight decay on kernels, a cosine after an epoch of warm-up. Its epochs
are 31 steps of 128, and train.py saves each; a larger set (`cnn-jax prepare fashion_mnist --data-dir DIR`) says what
steps are worth. Images/s are those of training alone, without tests and compiling. "99 %" is the time from the start of
the command to the end of the first epoch from which on the test's top-1 is at least 99 % of the last epoch's; nothing
compiled is kept from run to run. small_set compares ways of images into the same step.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contender import Rows, shown, versions
from benchmarks.networks import ROOT, Job
from benchmarks.report import PACKAGES, command_line, write
from benchmarks.speed import CONTENDERS
from cnn_jax import UserError, open_dataset

DECAY = 5e-4
RATE = {"lenet5_modern": 0.05, "resnet20_cifar": 0.1}
EPOCHS = {"lenet5_modern": 20, "resnet20_cifar": 5}
PLAIN = ("rotate", "translate", "scale", "shear")  # what the recipe distorts by


def followed(command: tuple[str, ...], epoch: str) -> tuple[list[float], list[str]]:
    """Seconds from the start to each line that matches `epoch`, and these lines."""
    start, times, lines = time.perf_counter(), [], []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if re.match(epoch, line):
                times.append(time.perf_counter() - start)
                lines.append(line)
        _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(
            errors.strip().splitlines()[-1][:300] if errors.strip() else f"ended with {process.returncode}"
        )
    return times, lines


def found(times: list[float], top1: list[float], images_per_s: float) -> dict[str, float]:
    """What a run says."""
    good = next(n for n in range(len(top1)) if min(top1[n:]) >= 0.99 * top1[-1])
    return {"images_per_s": images_per_s, "to_99_s": times[good], "all_s": times[-1], "top1": top1[-1]}


def run_ours(job: Job, epochs: int, data: dict[str, str]) -> dict[str, float]:
    """train.py's run on `data`, its options."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "recipe": "lenet5_modern",
            "model": job.network,
            "epochs": epochs,
            "batch-size": job.batch,
            "optimizer.lr": RATE[job.network],
            "optimizer.weight-decay": DECAY,
            **{f"augment.{name}": 0 for name in PLAIN},
            "out": f"{folder}/run",
            **data,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        times, _ = followed((sys.executable, "train.py", *words, "--no-compilation-cache"), r" *\d+/\d+ ")
        records = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    return found(times, [r["top1"] for r in records if r["kind"] == "test"], summary["images_per_s"])


def run_torch(job: Job, python: str, epochs: int, data: Path) -> dict[str, float]:
    """PyTorch's run."""
    options = {"path": str(data), "epochs": epochs, "rate": RATE[job.network], "decay": DECAY}
    times, lines = followed(job.command(python, "rivals_torch", options=options), r"\{")
    told = [json.loads(line) for line in lines]
    return found(times, [one["top1"] for one in told], told[-1]["images_per_s"])


def rows_of(results: dict[str, dict[str, list[dict[str, float]]]]) -> Rows:
    """A row for each network and contender: medians; ratios are medians of each round's, ours to that one."""
    rows: Rows = [("network", "images/s", "ours to it", "99 %, s", "ours to it", "all, s", "top-1, %")]
    for network, by in results.items():
        first = next(iter(by.values()))
        for name, runs in by.items():
            middle = {key: median(run[key] for run in runs) for key in (runs[0] if runs else ())}
            pairs = list(zip(first, runs, strict=False))
            faster = [one["images_per_s"] / other["images_per_s"] for one, other in pairs]
            sooner = [other["to_99_s"] / one["to_99_s"] for one, other in pairs]
            rows.append(
                (
                    f"{network}: {name}",
                    shown(middle.get("images_per_s"), ",.0f"),
                    shown(median(faster) if faster else None),
                    shown(middle.get("to_99_s"), ".1f"),
                    shown(median(sooner) if sooner else None),
                    shown(middle.get("all_s"), ".1f"),
                    shown((middle and 100 * middle["top1"]) or None, ".1f"),
                )
            )
    return rows


def main(argv: list[str] | None = None) -> int:
    """Measures, writes the report; returns the exit code."""
    parser = command_line(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(RATE), choices=RATE, metavar="NETWORK")
    parser.add_argument("--contenders", type=lambda text: text.split(","), default=["ours", "torch", "compile"])
    parser.add_argument("--torch-python", help="a python with torch; without it no PyTorch")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, help="20 of LeNet-5 and 5 of ResNet-20, if not given")
    parser.add_argument("--dataset", default="mnist_5k", help="of grey images in ten classes")
    parser.add_argument("--dir", help="of prepared data sets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="small_data", help="of the files")
    options = parser.parse_args(argv)
    try:
        open_dataset(options.dataset, "train", options.dir)
    except UserError as error:
        parser.error(str(error))
    contenders = [name for name in options.contenders if name == "ours" or options.torch_python]
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    notes = [] if options.torch_python else ["Without PyTorch: no --torch-python."]
    given = {"dataset": options.dataset} | ({"data-dir": options.dir} if options.dir else {})
    with tempfile.TemporaryDirectory() as folder:
        for network in options.networks:
            data = Path(folder, f"{network}.npz")
            job, epochs = Job(network, options.batch, 32, 1, 10), options.epochs or EPOCHS[network]
            told = {"path": str(data), "dataset": options.dataset, "data_dir": options.dir}
            job.output(sys.executable, "ours", task="export", options=told)
            results[network] = {name: [] for name in contenders}
            failed: set[str] = set()
            for number in range(options.rounds):
                for name in contenders:
                    if name in failed:
                        continue
                    try:
                        if name == "ours":
                            run = run_ours(job, epochs, given)
                        else:
                            form = replace(job, task="loop", form=CONTENDERS[name][1])
                            run = run_torch(form, options.torch_python, epochs, data)
                    except RuntimeError as error:
                        notes.append(f"{network}, {name}: {error}")
                        failed.add(name)
                        results[network][name].clear()
                    else:
                        results[network][name].append(run)
                print(f"{network}: round {number + 1} of {options.rounds}", file=sys.stderr)
    title = f"{options.dataset} on the device, batches of {options.batch}"
    used = versions(*PACKAGES)
    if options.torch_python:
        used |= json.loads(Job("", 0, task="versions").output(options.torch_python, "rivals_torch"))
    write(options.out, options.name, title, {"": rows_of(results)}, results, used=used, notes=notes)
    return int(not all(next(iter(by.values())) for by in results.values()))


if __name__ == "__main__":
    sys.exit(main())
