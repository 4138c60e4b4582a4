"""A run's numbers as they come: metrics.jsonl, TensorBoard events, Weights & Biases, a bar or plain lines."""

import contextlib
import json
import math
import os
import secrets
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from tensorboardX import SummaryWriter
from tqdm import tqdm

from cnn_jax.atomic import write_whole
from cnn_jax.data.order import Timeline
from cnn_jax.errors import UserError, first_line, of_system
from cnn_jax.tasks import TASKS, Task
from cnn_jax.training.hardware import Hardware

RECORD_KEYS = {
    "train": {"step", "epoch", "loss", "lr", "images_per_s"},
    "validation": {"step", "epoch", "loss", "count"},
    "test": {"step", "epoch", "loss", "count"},
    "saved": {"step"},
    "compiled": {"step", "epoch", "train_s"},
}


class RunLog:
    """Writes records, told apart by `kind`.

    train: step, epoch, means over the steps since the record before (loss, top1 or what its task tells,
    grad_norm: the gradient's norm before clipping, images_per_s, data_wait: the share of the time in which no batch
    was there), lr of the last step, and where known mfu, the model's floating-point operations as a
    share of what the devices could do, and memory_gib, the most that a device has had in use.
    test, or validation: step, epoch, loss, top1, top5 or what its task tells, count, after each epoch over every
    such image.
    saved: step; the checkpoint of that step is on disk, whole.
    compiled: step, epoch, seconds that each program took to compile, or to be found where programs are kept: train_s,
    tests_s, settle_s (precise batch statistics), and init_s of a run that begins.
    Several seeds side by side: means over them, and for tests top1_std, the spread, and top1_seeds.

    Steps that bad numbers made idle stand in skipped.jsonl, with their images.
    A context manager: leaving it ends the bar and the files.
    """

    def __init__(
        self,
        out: Path,
        timeline: Timeline,
        step: int,
        tested: Literal["test", "validation"] = "test",
        *,
        task: Task | type[Task] = TASKS["classify"],
        hardware: Hardware | None = None,
        wandb: str | None = None,
        config: dict | None = None,
        silent: bool = False,
        named: Any = None,
    ):
        """Opens the files of `out`. Records after `step`, from a run that died later, are dropped.

        `tested` is what the network is tested on after each epoch; `wandb` a project of Weights &
        Biases that gets all numbers too, with `config`. A `silent` log, of the processes beside the
        first one, writes nothing. `named` is what lines call `out`, if not so.

        Raises:
          UserError: the files cannot be written; wandb is not installed or does not start.
        """
        self.timeline, self.tested, self._hardware = timeline, tested, hardware
        self.path, self.skipped_path = out / "metrics.jsonl", out / "skipped.jsonl"
        self.skipped_named = (named or out) / "skipped.jsonl"
        self._silent = silent
        try:
            kept = [] if silent else _kept(self.path, self.skipped_path, step)
            self._file = open(os.devnull if silent else self.path, "a")  # noqa: SIM115
            board = str(out / "tensorboard")
            self._board = SummaryWriter(board, purge_step=step + 1, write_to_disk=not silent)
        except OSError as error:
            raise of_system(f"cannot write {error.filename or self.path}", error) from None
        self._there = {(record["kind"], record["step"]) for record in kept}
        self._wandb = _start_wandb(wandb, out, config) if wandb and not silent else None
        self._began, self._first = time.perf_counter(), step
        self.task = task
        kind = "test" if tested == "test" else " val"
        figures = "  ".join(f"{f'{kind} {figure.title}':>10}" for figure in task.tested)
        trained = f"train {task.trained.title}"
        print(
            f"  epoch     step  train loss  {trained:>11}  {kind} loss  {figures}  tested       lr  images/s   left",
            flush=True,
        )
        self._bar = tqdm(
            total=timeline.steps,
            initial=step,
            unit="step",
            leave=False,
            mininterval=0.2,
            dynamic_ncols=True,
            disable=silent or not sys.stderr.isatty(),
        )

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Appends a record and its scalars, unless it stands there already."""
        if (kind, step) in self._there:
            return
        self._there.add((kind, step))
        if self._hardware and kind == "train":
            values |= self._hardware.use(values["images_per_s"])
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        scalars = {f"{kind}/{name}": value for name, value in numbers.items() if name not in ("epoch", "count")}
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)
        if self._wandb and scalars:
            self._wandb.log(scalars | {"epoch": values["epoch"]}, step=step)

    def skipped(self, step: int, epoch: float, images: list[int], found: dict[str, float]) -> None:
        """Tells of a step that changed nothing, the `step`-th, and writes down its images."""
        if self._silent:
            return
        numbers = {name: str(found[name]) for name in ("loss", "grad_norm")}  # JSON has no NaN
        with self.skipped_path.open("a") as file:
            file.write(json.dumps({"step": step, "epoch": epoch, **numbers, "images": images}) + "\n")
        first = ", ".join(map(str, images[:8])) + (", ..." if len(images) > 8 else "")
        self._bar.write(
            f"step {step}: loss {numbers['loss']}, gradient {numbers['grad_norm']}: nothing was changed; "
            f"images {first}, all in {self.skipped_named}"
        )
        sys.stdout.flush()

    def progress(self, step: int, means: dict | None = None) -> None:
        """Moves the bar, and shows new means if given; nothing where stderr is no terminal."""
        if means:
            epoch = math.ceil(self.timeline.epoch(step))
            self._bar.set_description_str(f"epoch {epoch}/{self.timeline.epochs}", refresh=False)
            figure = f"{self.task.trained.title} {means[self.task.trained.key]:.1%}"
            wait = f", {means['data_wait']:.0%} waiting for data" if means["data_wait"] > 0.01 else ""
            self._bar.set_postfix_str(
                f"loss {means['loss']:.3f}, {figure}, {means['images_per_s']:,.0f} images/s{wait}",
                refresh=False,
            )
        self._bar.update(step - self._bar.n)

    def epoch_line(self, step: int, train: dict | None, test: dict) -> None:
        """One row of the table: an epoch's training means, if there are any, its test, and the time that is left."""
        epoch = f"{round(self.timeline.epoch(step))}/{self.timeline.epochs}"
        loss, figure, lr, speed = ("-",) * 4
        if train:
            loss, figure = f"{train['loss']:.4f}", f"{train[self.task.trained.key]:.2%}"
            lr, speed = f"{train['lr']:.2g}", f"{train['images_per_s']:,.0f}"
        wide, found = max(11, 6 + len(self.task.trained.title)), ""
        for key, title in self.task.tested:
            found += f"  {test[key]:>{max(10, 5 + len(title))}.2%}"
        self._bar.write(
            f"{epoch:>7}  {step:>7}  {loss:>10}  {figure:>{wide}}  {test['loss']:>9.4f}{found}"
            f"  {test['count']:>6}  {lr:>7}  {speed:>8}  {self._left(step):>5}"
        )
        sys.stdout.flush()

    def _left(self, step: int) -> str:
        """How long the rest takes at this process's pace so far, tests and saves included, as h:mm or m:ss."""
        if step == self._first:
            return "-"
        seconds = (time.perf_counter() - self._began) / (step - self._first) * (self.timeline.steps - step)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}"

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        with contextlib.ExitStack() as ending:  # each of them, also after an error of another
            for end in (self._wandb.finish if self._wandb else None, self._board.close, self._file.close):
                if end:
                    ending.callback(end)
            self._bar.close()


def _kept(path: Path, skipped_path: Path, step: int) -> list[dict]:
    """The records up to `step`, after both files were cut there."""
    kept = [record for record in read_metrics(path) if record["step"] <= step]
    write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))
    if skipped_path.exists():
        idle = [line for line in _lines(skipped_path) if line.get("step", math.inf) <= step]
        write_whole(skipped_path, "".join(json.dumps(line) + "\n" for line in idle))
    return kept


def read_metrics(path: Path) -> list[dict]:
    """The records of a metrics.jsonl; lines that a kill or an editor damaged are left out."""
    return [record for record in _lines(path) if _is_record(record)]


def _lines(path: Path) -> list[dict]:
    """The objects of a file of JSON lines, as far as they can be read."""
    objects = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                objects.append(value)
    return objects


def _is_record(value: dict) -> bool:
    """Whether an object is a record of one of the kinds, with a number for each of its keys."""
    if value.get("kind") not in tuple(RECORD_KEYS):
        return False
    return all(isinstance(value.get(key), int | float) for key in RECORD_KEYS[value["kind"]])


def _start_wandb(project: str, out: Path, config: dict | None) -> Any:
    try:
        wandb: Any = import_module("wandb")
    except ImportError:
        raise UserError("--wandb needs the package wandb: pip install wandb") from None
    path = out / "wandb-id"  # so that a resumed run goes on with its own curves
    if not path.exists():
        write_whole(path, secrets.token_hex(8))
    try:
        return wandb.init(project=project, dir=out, name=out.name, config=config, id=path.read_text(), resume="allow")
    except wandb.errors.Error as error:
        raise UserError(f"Weights & Biases does not start: {first_line(error)}") from None
