"""Seconds until a training step runs: tracing, lowering and compiling, with nothing kept and from the cache.

    uv run python -m benchmarks.compile [--networks NAME ...] [--contenders ours,flax] [--batch N] [--no-starts]

Each row is two processes, one after the other, with a compilation cache of their own, empty at first: the stages of a
network's init and of its training step (train_step's), and the sum again in the second process. "start" is train.py
itself from its command to its first step, on synthetic images: for the first time in an environment that has just been
made; with Python's bytecode kept, as after another network's run; and for the second time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

from benchmarks.contender import Rows, shown
from benchmarks.networks import NETWORKS, ROOT, Job
from benchmarks.report import command_line, write
from benchmarks.speed import CONTENDERS

KEEP = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}  # as train.py has it
STARTS = ("start", "start, bytecode", "start, kept")
HEAD = "  epoch "  # of the table that train.py begins when all is compiled


def stages(job: Job, cache: str) -> dict[str, Any]:
    """What a process says of both programs."""
    environment = os.environ | KEEP | {"JAX_COMPILATION_CACHE_DIR": cache}
    return json.loads(job.output(sys.executable, "ours", environment=environment, task="compile"))


def start(job: Job, programs: str, bytecode: str) -> float:
    """Seconds from train.py's command to its first step; it is killed then."""
    kept = {
        "JAX_COMPILATION_CACHE_DIR": programs,
        "PYTHONPYCACHEPREFIX": bytecode,
        "PYTHONDONTWRITEBYTECODE": "",  # which is as good as not set
    }
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "recipe": "lenet5_modern",
            "model": job.network,
            "dataset": f"synthetic:{job.size}x{job.size}x{job.classes}",
            "batch-size": job.batch,
            "engine": "host",  # a set on the device would have to be drawn first
            "out": f"{folder}/run",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        began = time.perf_counter()
        with subprocess.Popen(
            (sys.executable, "train.py", *words),
            cwd=ROOT,
            env=os.environ | KEEP | kept,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            reached = any(line.startswith(HEAD) for line in process.stdout)
            seconds = time.perf_counter() - began
            process.kill()
    if not reached:
        raise RuntimeError(f"train.py {' '.join(words)} did not begin")
    return seconds


def total(said: dict[str, Any]) -> float:
    """Of both programs."""
    return sum(said["init"].values()) + sum(said["step"].values())


def rows_of(found: dict[str, dict[str, dict[str, Any]]]) -> Rows:
    """A row for each network and contender."""
    rows: Rows = [("network", "init", "trace", "lower", "compile", "all", "all, kept", *STARTS)]
    for label, by in found.items():
        for name, one in by.items():
            cold, warm = one["cold"], one["warm"]
            seconds = (sum(cold["init"].values()), *cold["step"].values(), total(cold), total(warm))
            starts = one.get("starts", (None,) * len(STARTS))
            rows.append((f"{label}: {name}", *(shown(value, ".1f") for value in (*seconds, *starts))))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Measures, writes the report; returns the exit code."""
    parser = command_line(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, metavar="NETWORK")
    parser.add_argument("--contenders", type=lambda text: text.split(","), default=["ours", "flax"])
    parser.add_argument("--batch", type=int, help="instead of each network's own")
    parser.add_argument("--no-starts", action="store_true", help="leave train.py out")
    options = parser.parse_args(argv)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in options.networks:
        job = replace(NETWORKS[name], batch=options.batch or NETWORKS[name].batch)
        by = found.setdefault(f"{name}, batch {job.batch}", {})
        for contender in options.contenders:
            print(f"{name}: {contender}", file=sys.stderr)
            form = replace(job, form=CONTENDERS[contender][1])
            with tempfile.TemporaryDirectory() as cache:
                by[contender] = {"cold": stages(form, cache), "warm": stages(form, cache)}
            if contender == "ours" and not options.no_starts:
                with tempfile.TemporaryDirectory() as folder:
                    bytecode, *programs = (f"{folder}/{name}" for name in ("bytecode", "first", "second"))
                    by[contender]["starts"] = [start(job, cache, bytecode) for cache in (*programs, programs[1])]
    notes = [
        "Seconds. `kept`: the process finds programs and Python's bytecode of the one before; `bytecode`: no programs. "
        "The first start finds neither."
    ]
    write(options.out, "compile", "Compiling", {"": rows_of(found)}, found, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
