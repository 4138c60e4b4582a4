"""A run's numbers as they come: metrics.jsonl, TensorBoard events, a bar or plain lines."""

import contextlib
import json
import math
import sys
from pathlib import Path
from typing import Any, Literal

from tensorboardX import SummaryWriter
from tqdm import tqdm

from cnn_jax.data.order import Timeline
from cnn_jax.errors import UserError
from cnn_jax.training.run_folder import write_whole

RECORD_KEYS = {
    "train": {"step", "epoch", "loss", "top1", "lr", "images_per_s"},
    "validation": {"step", "epoch", "loss", "top1", "top5", "count"},
    "test": {"step", "epoch", "loss", "top1", "top5", "count"},
}
HEAD = "  epoch     step  train loss  train top-1  {0} loss  {0} top-1  {0} top-5  tested       lr  images/s"


class RunLog:
    """Writes records, told apart by `kind`.

    train: step, epoch, loss, top1, lr, images_per_s, data_wait (the share of the time in which no
    batch was there), means over the steps since the record before.
    test, or validation: step, epoch, loss, top1, top5, count, after each epoch over every such image.
    A context manager: leaving it ends the bar and the files.
    """

    def __init__(self, out: Path, timeline: Timeline, step: int, tested: Literal["test", "validation"] = "test"):
        """Opens the files of `out`. Records after `step`, from a run that died later, are dropped.

        `tested` is what the network is tested on after each epoch.

        Raises:
          UserError: the files cannot be written.
        """
        self.timeline, self.tested = timeline, tested
        self.path = out / "metrics.jsonl"
        try:
            kept = [record for record in read_metrics(self.path) if record["step"] <= step]
            write_whole(self.path, "".join(json.dumps(record) + "\n" for record in kept))
            self._file = self.path.open("a")
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)
        except OSError as error:
            raise UserError(f"cannot write {error.filename or self.path}: {error.strerror}") from None
        print(HEAD.format("test" if tested == "test" else " val"), flush=True)
        self._bar = tqdm(
            total=timeline.steps,
            initial=step,
            unit="step",
            leave=False,
            mininterval=0.2,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def write(self, kind: str, step: int, **values: float) -> None:
        """Appends a record and its TensorBoard scalars."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if name not in ("epoch", "count"):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def progress(self, step: int, means: dict | None = None) -> None:
        """Moves the bar, and shows new means if given; nothing where stderr is no terminal."""
        if means:
            epoch = math.ceil(self.timeline.epoch(step))
            self._bar.set_description_str(f"epoch {epoch}/{self.timeline.epochs}", refresh=False)
            wait = f", {means['data_wait']:.0%} waiting for data" if means["data_wait"] > 0.01 else ""
            self._bar.set_postfix_str(
                f"loss {means['loss']:.3f}, top-1 {means['top1']:.1%}, {means['images_per_s']:,.0f} images/s{wait}",
                refresh=False,
            )
        self._bar.update(step - self._bar.n)

    def epoch_line(self, step: int, train: dict, test: dict) -> None:
        """One row of the table: an epoch's training means and its test."""
        epoch = f"{round(self.timeline.epoch(step))}/{self.timeline.epochs}"
        self._bar.write(
            f"{epoch:>7}  {step:>7}  {train['loss']:>10.4f}  {train['top1']:>11.2%}  {test['loss']:>9.4f}"
            f"  {test['top1']:>10.2%}  {test['top5']:>10.2%}  {test['count']:>6}  {train['lr']:>7.2g}"
            f"  {train['images_per_s']:>8,.0f}"
        )
        sys.stdout.flush()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()
        self._file.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict]:
    """The records of a metrics.jsonl; lines that a kill or an editor damaged are left out."""
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if _is_record(record):
                records.append(record)
    return records


def _is_record(value: Any) -> bool:
    """Whether a line of JSON is a record of one of the kinds, with a number for each of its keys."""
    if not isinstance(value, dict) or value.get("kind") not in tuple(RECORD_KEYS):
        return False
    return all(isinstance(value.get(key), int | float) for key in RECORD_KEYS[value["kind"]])
