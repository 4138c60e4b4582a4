"""What tests of whole runs share."""

import json
import subprocess
import time

SHORT = ("--epochs", 3, "--batch-size", 100)  # 120 steps, 40 an epoch


def summary(out) -> dict:
    return json.loads((out / "summary.json").read_text())


def start(train_command, *options) -> subprocess.Popen:
    return subprocess.Popen(**train_command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_step(out, step, process, seconds=120):
    """Returns when the run's metrics have reached `step`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        path = out / "metrics.jsonl"
        if path.exists() and any(f'"step": {n}' in path.read_text() for n in range(step, step + 20)):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} not seen; exit {process.poll()}: {process.communicate()}")
