"""Runs of train.py that a benchmark makes, and their figures over seeds."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from benchmarks.networks import ROOT


def trained(out: Path, *options: str) -> dict:
    """The summary of a run of train.py with these options, made if it is not in `out`, or gone on with."""
    if not (out / "summary.json").exists():
        command = [sys.executable, "train.py", "--out", str(out), "--resume", "auto", *options]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "summary.json").read_text())


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean and, of several, standard deviation (n - 1)."""
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")
