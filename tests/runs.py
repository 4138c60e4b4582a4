"""What tests of whole runs share: train.py inside this process, and what is made once for all workers."""

import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from spied import signal_itself, spy

# A thousand of the digits, a hundred of each: they come sorted by digit, 400 of each.
THOUSAND = "+".join(f"train[{start}:{start + 100}]" for start in range(0, 4_000, 400))
SHORT = ("--epochs", 3, "--batch-size", 25, "--train-split", THOUSAND)  # 120 steps, 40 an epoch
SAFETY = 600  # seconds: against what hangs; nothing is expected to end by them


def summary(out) -> dict:
    return json.loads((out / "summary.json").read_text())


def records(out) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def train_here(
    *options, data_dir: Path, pictures: bool = False, steps: list | None = None, stop: tuple | None = None
) -> subprocess.CompletedProcess:
    """Runs train.main in this process and gives what a process of its own would: exit code and output.

    Without `pictures` as where matplotlib is not installed, in half of the time. `steps` gets (epoch, images) of every
    step; `stop` is a signal and the step before which it comes, counted from where this call begins.
    """
    import train  # not above: conftest sets JAX's environment before anything imports it

    out, err = io.StringIO(), io.StringIO()
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("TFDS_DATA_DIR", str(data_dir))
        patch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back what train.main replaces
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        if not pictures:
            patch.setitem(sys.modules, "matplotlib", None)
        if steps is not None:
            spy(patch.setattr, told=lambda *step: steps.append(step))
        if stop is not None:
            spy(patch.setattr, before_step=signal_itself(*stop))
        try:
            code = train.main([*map(str, options)])
        finally:
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
    return subprocess.CompletedProcess(options, code, out.getvalue(), err.getvalue())


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, in the first worker of the tests that needs it, for all. Not to be changed."""
    top = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent
    folder, done = top / name, top / f"{name}.done"
    with (top / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
