"""Runs of the ledger: trained once, each on one core, and kept as results/RUN-SEED.json, which is never written again.

One core, so that as many run at once as there are cores, and a digest does not depend on how many.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from benchmarks.ledger.networks import register
from benchmarks.ledger.runs import RUNS
from benchmarks.networks import ROOT
from benchmarks.report import commit, machine
from cnn_jax.atomic import write_json
from cnn_jax.errors import UserError
from cnn_jax.models import create_model, model_info
from cnn_jax.models.structure import structure
from cnn_jax.recipes import Recipe
from cnn_jax.training.logs import read_metrics

RESULTS = ROOT / "results"
FOLDERS = ROOT / "runs" / "ledger"
GIVEN_UP = "not finite"  # what train.py says in its last line of a run whose numbers were bad
KEPT = ("test_loss", "test_top1", "steps", "params", "params_digest", "images_per_s", "device", "versions")


class Wanted(NamedTuple):
    """A run that a claim needs, and protocols by which it is tested besides."""

    run: str
    seed: int
    protocols: tuple[tuple[str, ...], ...] = ()

    def result(self, results: Path) -> Path:
        """Where its figures are kept."""
        return results / f"{self.run}-{self.seed}.json"

    def read(self, results: Path) -> dict[str, Any] | None:
        """Its figures; None before it has ended."""
        file = self.result(results)
        return json.loads(file.read_text()) if file.exists() else None


def make(wanted: Iterable[Wanted], data: Sequence[str], results: Path, folders: Path, jobs: int) -> None:
    """Trains what has no figures yet, `jobs` runs at a time, each on a core of its own; with 0, one on all there are.

    `data` are options of train.py that say where Fashion-MNIST lies. A run that was stopped goes on in its folder of
    `folders`.

    Raises:
      UserError: a run ended otherwise than by its end or by bad numbers; its last words.
    """
    missing = [one for one in wanted if one.read(results) is None]
    results.mkdir(parents=True, exist_ok=True)
    folders.mkdir(parents=True, exist_ok=True)
    workers, ended = count(), count(1)

    def stay() -> None:
        """Keeps this thread, and so the processes that it starts, on a core."""
        if jobs and hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[next(workers) % len(cores)]})

    def one(run: Wanted) -> None:
        found = _train(run, data, folders / f"{run.run}-{run.seed}", jobs > 0)
        write_json(run.result(results), found)
        said = found["failed"] or f"{100 * found['test_top1']:.2f} % of the test images"
        place = f"[{next(ended)}/{len(missing)}]"
        print(f"{place} {run.run}, seed {run.seed}: {said}, {found['minutes']:.1f} min", file=sys.stderr, flush=True)

    print(f"{len(missing)} runs to make", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(max(1, jobs), initializer=stay) as pool:
        try:
            for done in [pool.submit(one, run) for run in missing]:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # those that run end first
            raise


def network(recipe: Recipe) -> nn.Module:
    """What a recipe trains."""
    register()
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in recipe.model_options.items()}
    stem = {} if recipe.stem is None else {"stem": recipe.stem}
    return create_model(recipe.model, num_classes=10, **options, **stem)


def side(recipe: Recipe) -> int:
    """Of the images that its network sees, in pixels."""
    register()
    return recipe.image_size or model_info(recipe.model).input_size[0]


def multiply_adds(recipe: Recipe) -> int:
    """Of its network for one image of Fashion-MNIST or of the digits."""
    return structure(network(recipe), (side(recipe), side(recipe), 1)).macs


def _train(wanted: Wanted, data: Sequence[str], out: Path, one_core: bool) -> dict[str, Any]:
    words = ["-m", "benchmarks.ledger.run", "train", "--recipe", wanted.run, "--seed", str(wanted.seed)]
    began, made_by = time.perf_counter(), commit()  # of the code that is run, whatever is checked out meanwhile
    images = data if RUNS[wanted.run].dataset == "fashion_mnist" else ()  # the digits are in the package
    failed = _run([*words, *images, "--out", str(out), "--resume", "auto"], out.with_suffix(".log"))
    if failed and GIVEN_UP not in failed:
        raise UserError(f"{out.name}: {failed}")
    summary = {} if failed else json.loads((out / "summary.json").read_text())
    return {
        "run": wanted.run,
        "seed": wanted.seed,
        "command": shlex.join(["uv", "run", "python", *words]),
        "commit": made_by,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": machine() | ({"cores": 1} if one_core else {}),
        "failed": failed,
        **{key: summary.get(key) for key in KEPT},
        "macs": multiply_adds(RUNS[wanted.run]),
        "protocols": {} if failed else {" ".join(words): _test(wanted, out, words) for words in wanted.protocols},
        "training": _series(out, "train", "step"),
        "tests": _series(out, "test", "epoch"),
        "minutes": round(summary.get("wall_s", time.perf_counter() - began) / 60, 2),  # of its last start
    }


def _test(wanted: Wanted, out: Path, protocol: Sequence[str]) -> float:
    """Top-1 of a run by another protocol."""
    folder = out / protocol[0]
    model = RUNS[wanted.run].model
    words = ("cnn-jax", "evaluate", model, "--run", str(out), "--protocol", *protocol, "--out", str(folder))
    failed = _run(["-m", "benchmarks.ledger.run", *words], folder.with_suffix(".log"))
    if failed:
        raise UserError(f"{out.name}, {protocol[0]}: {failed}")
    return json.loads((folder / "metrics.json").read_text())["top1"]


def _run(words: Sequence[str], log: Path) -> str:
    """Runs a program of Python, its output in `log`; its last line if it failed, else nothing."""
    with log.open("w") as file:
        code = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=file, stderr=file, check=False).returncode
    return (log.read_text().strip().splitlines() or [f"exit code {code}"])[-1] if code else ""


def _series(out: Path, kind: str, along: str) -> list[list[float]]:
    """Step or epoch, loss and top-1 of a run's records of a kind."""
    records = [record for record in read_metrics(out / "metrics.jsonl") if record["kind"] == kind]
    return [[round(record[key], 5) for key in (along, "loss", "top1")] for record in records]
