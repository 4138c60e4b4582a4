"""Kills real runs of train.py at random moments and goes on with them, again and again.

    uv run python -m benchmarks.kill_test --kills 100

Each run trains LeNet-5 on the embedded digits and saves every other step; most kills wait for the next save to have
begun and meet its writing, its sealing or the removal of an old checkpoint. Every run must end with the bits of one
that nobody stopped, and no checkpoint whose `saved` record was written may be lost. Exit code 1 if one was.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from cnn_jax.training.manifest import MANIFEST, PART

ROOT = Path(__file__).parent.parent
RUN = ("--epochs", "6", "--batch-size", "100", "--save-every", "2")  # 240 steps, 120 saves
OFTEN = 4  # a kill comes within that part of a whole run's training, so that a run is killed several times
EARLY = 0.2  # share of the kills before the first step: imports, restoring, compiling
ANYWHERE = 0.25  # share of the others that wait for no save
SAVED = r'"kind": "saved", "step": (\d+)}'


@dataclass
class Found:
    """What came of it. Lost are acknowledged checkpoints that a resumed run did not find."""

    kills: int = 0
    runs: int = 0
    in_training: int = 0
    in_save: int = 0  # after the first checkpoint, in the middle of another
    unfinished: int = 0  # checkpoints that a kill cut short, passed over
    lost: int = 0
    other_digests: int = 0
    failures: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing was lost."""
        return not (self.lost or self.other_digests or self.failures)


class Run:
    """One process of train.py; what it prints is collected as it comes."""

    def __init__(self, out: Path):
        command = [sys.executable, str(ROOT / "train.py"), *RUN, "--out", str(out), "--resume", "auto"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        self.text, self.began = "", threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.text += line
            if "train loss" in line:  # the head of the table
                self.began.set()
        self.began.set()

    def wait(self) -> int:
        """The exit code, when all is read."""
        code = self.process.wait()
        self._reader.join()
        return code


def acknowledged(out: Path) -> int:
    """The newest step that the run has said to be saved, 0 if none."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    steps = (int(step) for line in lines for step in re.findall(SAVED, line))
    return max(steps, default=0)


def digest(out: Path) -> str:
    """That of a finished run."""
    return json.loads((out / "summary.json").read_text())["params_digest"]


def in_save(out: Path) -> bool:
    """Whether a checkpoint is being made beside a whole one; also of a run that was killed."""
    checkpoints = out / "checkpoints"
    return any(checkpoints.glob(f"*/{MANIFEST}")) and any(checkpoints.glob(f"*{PART}"))


def kill_test(kills: int, seed: int = 0) -> Found:
    """Kills runs `kills` times in all, at moments drawn from `seed`."""
    draw, found = random.Random(seed), Found()
    with tempfile.TemporaryDirectory() as folder, tqdm(total=kills, unit="kill", disable=None) as bar:
        whole = Run(Path(folder, "whole"))
        start = time.monotonic()
        whole.began.wait()
        prologue = time.monotonic() - start
        if whole.wait():
            raise SystemExit(f"the run that nobody stops fails:\n{whole.text}")
        training, wanted = time.monotonic() - start - prologue, digest(Path(folder, "whole"))
        while found.kills < kills:
            out, saved = Path(folder, f"run{found.runs}"), 0
            found.runs += 1
            while True:
                run = Run(out)
                early = draw.random() < EARLY
                moment = draw.uniform(0, prologue if early else training / OFTEN)
                if not early:
                    run.began.wait()
                try:
                    if found.kills == kills:
                        moment = None  # to its end
                    code = run.process.wait(moment)
                except subprocess.TimeoutExpired:
                    waits = not early and draw.random() >= ANYWHERE
                    while waits and run.process.poll() is None and not in_save(out):
                        time.sleep(0.001)
                    code = run.process.poll()
                    if code is None:
                        run.process.kill()
                        run.process.wait()
                        found.kills += 1
                        found.in_training += not early
                        found.in_save += not early and in_save(out)
                        bar.update()
                run.wait()
                if begun := re.search(r"from step (\d+) to", run.text):
                    found.lost += int(begun[1]) < saved
                found.unfinished += run.text.count("was not finished")
                saved = max(saved, acknowledged(out))
                if code is None:
                    continue
                if code:
                    found.failures += 1
                    tqdm.write(f"exit code {code}:\n{run.text}", file=sys.stderr)
                else:
                    found.other_digests += digest(out) != wanted
                break
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    found = kill_test(**vars(parser.parse_args()))
    print(json.dumps(asdict(found)))
    sys.exit(not found.good)
