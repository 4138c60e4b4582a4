"""What is seen to beside the steps of a run: their numbers, signals, and when it must end."""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from cnn_jax.data.engines import AHEAD
from cnn_jax.data.loaders import Batch, Loader
from cnn_jax.data.order import Timeline
from cnn_jax.errors import BadData, UserError
from cnn_jax.training.run_folder import RunFolder
from cnn_jax.training.signals import Interrupted, Stopped, StopRequest
from cnn_jax.training.state import TrainState, scalar
from cnn_jax.training.step import METRICS

LOG_EVERY = 20  # steps between two train records, each written when its last step is seen to be finished


class GivenUp(Stopped, UserError):
    """The run ends because its numbers are bad."""


class Watch:
    """Follows a run from step to step. Of several processes each has one, and calls it as often.

    Attributes:
      position: the steps taken, those still on their way to the device included.
      images_per_s: of all epochs that this process trained, without tests; None before one has ended.
    """

    def __init__(
        self,
        folder: RunFolder,
        timeline: Timeline,
        stop: StopRequest,
        state: TrainState,
        train: Loader,
        max_skipped: int = 3,
    ):
        """`train` gives the batches; a run with `max_skipped` idle steps in a row is given up."""
        self.position = scalar(state.step)
        self._folder, self._timeline, self._stop, self._train = folder, timeline, stop, train
        self._max_skipped = max_skipped
        self._images, self._seconds = 0, 0.0
        self._meter = Meter(train, folder.log.task.trained.key)
        folder.trace.at(self.position, state)

    def __call__(self, state: TrainState, metrics: jax.Array, batch: Batch, saving: bool = False) -> None:
        """To be called after each step with what it returned (step.told); `saving`: before it is saved.

        What is saved is waited for, so that a run which goes on from there has the records up to there.

        Raises:
          Interrupted: a signal came, not in the last step of an epoch: that one's test hears it.
          GivenUp: `max_skipped` steps in a row met a bad number.
        """
        self.position += 1
        self._folder.trace.at(self.position, state)
        self._meter.add(self.position, batch.rows, metrics)
        epoch_ends, stopping = self._timeline.ends_epoch(self.position), self._stop.poll()
        all_told = epoch_ends or stopping
        idle, means = self._hear(0 if all_told or saving else AHEAD, all_told)
        if idle >= self._max_skipped:
            raise GivenUp(
                f"the loss or its gradient was not finite in {idle} steps in a row; none of them changed the network, "
                f"which is saved; {self._folder.log.skipped_named} has their images; a lower --optimizer.lr or "
                f"--optimizer.clip 1 may help, also with --resume --allow-change"
            )
        self._folder.log.progress(self.position, means)
        self._tell_saved()
        if epoch_ends:
            self._images, self._seconds = self._images + self._meter.images, self._seconds + self._meter.seconds
        elif stopping:
            raise self._interrupted()

    def heed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of a test, until a signal comes: then Interrupted is raised."""
        for batch in batches:
            if self._stop.poll():
                raise self._interrupted()
            yield batch

    def found(self, test: dict[str, Any]) -> None:
        """Notes and logs what a test after an epoch found (evaluation.summarize).

        Raises:
          GivenUp: its loss is not finite. A run that is resumed after that goes on training.
        """
        log, loss = self._folder.log, test["test_loss"]
        if loss is None or not math.isfinite(loss):
            known, last = self._folder.tested(self.position), self.position == self._timeline.steps
            self._folder.note(self.position, test | {"test_loss": None})  # JSON has no NaN
            told = f"the {log.tested} loss after step {self.position} was not finite"
            if last or known is None:
                advice = "" if last else ", also with --resume --allow-change"
                raise GivenUp(f"{told}; a lower --optimizer.lr may help{advice}")
            print(f"{told}; going on", flush=True)
            self._meter = self._meter.anew()
            return
        self._folder.note(self.position, test)
        self._tell_saved()
        record = {name.removeprefix("test_"): value for name, value in test.items()}
        log.write(log.tested, step=self.position, epoch=self._timeline.epoch(self.position), **record)
        log.epoch_line(self.position, self._meter.epoch_means(), record)
        self._meter = self._meter.anew()  # of the next epoch

    def leave(self, state: TrainState, why: Exception) -> None:
        """Saves the state of a run that ends before its last step, and writes down what was under way.

        Not for bad data that of several processes maybe one alone has met, since the others join no save.
        """
        self._hear(0)
        bad_data = isinstance(why, BadData)
        if bad_data and jax.process_count() > 1:
            return
        if not (bad_data and self._timeline.ends_epoch(self.position)):  # there it is saved, or not settled yet
            self._folder.save(state)
        self.finish()

    def finish(self) -> None:
        """Waits until all that was saved is on disk, and logs it."""
        self._folder.checkpoints.wait()
        self._tell_saved()

    @property
    def images_per_s(self) -> float | None:
        """Images trained on a second."""
        return self._images / self._seconds if self._seconds else None

    def _interrupted(self) -> Interrupted:
        where = f" at step {self.position}; the checkpoint is saved{self._stop.advice}"
        return Interrupted(self._stop.received or 0, where)

    def _hear(self, ahead: int, all_told: bool = False) -> tuple[int, dict[str, float] | None]:
        """Writes down what finished steps say until no more than `ahead` are under way; `all_told`: with a record at
        the last, whichever it is. Returns the most steps in a row that were skipped, and the newest record's means."""
        most, means = 0, None
        for position, rows, found in self._meter.finished(ahead):
            epoch = self._timeline.epoch(position)
            if found["skipped"]:
                self._folder.log.skipped(position, epoch, rows.ravel().tolist(), found)
                most = max(most, int(found["skipped"]))
            ends = all_told and position == self.position
            if (position % LOG_EVERY == 0 or ends) and most < self._max_skipped and (read := self._meter.read()):
                means = read
                self._folder.log.write("train", step=position, epoch=epoch, **means)
        return most, means

    def _tell_saved(self) -> None:
        while (saved := self._folder.checkpoints.poll()) is not None:
            self._folder.log.write("saved", step=saved)


class Meter:
    """What the steps of an epoch return, taken from the device as they finish, and means of it."""

    def __init__(self, train: Loader, figure: str):
        """`figure` is what the task calls its own."""
        self.images = 0
        self._train, self._figure = train, figure
        self._names = tuple(figure if name == "figure" else name for name in METRICS)
        self._waited = train.engine.waited
        self._running: deque[tuple[int, np.ndarray, jax.Array]] = deque()
        self._fresh: list[dict[str, float]] = []
        self._read: list[dict[str, float]] = []
        self._start = self._last = time.perf_counter()

    def anew(self) -> "Meter":
        """One for the next epoch."""
        return Meter(self._train, self._figure)

    def add(self, position: int, rows: np.ndarray, metrics: jax.Array) -> None:
        """Takes a step's metrics without waiting for them; `rows` are its images."""
        self._running.append((position, rows, metrics))

    def finished(self, ahead: int) -> Iterator[tuple[int, np.ndarray, dict[str, float]]]:
        """Waits until no more than `ahead` steps are on their way to the device; position, images and metrics of the
        others. Of several seeds the mean counts, and the most steps that any skipped."""
        while len(self._running) > ahead:
            position, rows, metrics = self._running.popleft()
            values = np.asarray(metrics).reshape(-1, len(METRICS))
            found = dict(zip(self._names, values.mean(0).tolist(), strict=True)) | {
                "skipped": float(values[:, -1].max())
            }
            self._fresh.append(found)
            yield position, rows, found

    def read(self) -> dict[str, float]:
        """Means over the steps finished since the last reading, skipped ones left out, with speed and the share of
        time without data; empty if all were skipped."""
        now, waited = time.perf_counter(), self._train.engine.waited
        spent, images = now - self._last, len(self._fresh) * self._train.batch_size
        wait = (waited - self._waited) / spent
        means = _means(self._fresh)
        self._read += self._fresh
        self.images += images
        self._fresh, self._last, self._waited = [], now, waited
        return means and means | {"images_per_s": images / spent, "data_wait": wait}

    def epoch_means(self) -> dict[str, float]:
        """Means over everything read so far; empty if there is nothing, or all was skipped."""
        means = _means(self._read)
        return means and means | {"images_per_s": self.images / self.seconds}

    @property
    def seconds(self) -> float:
        """From the start of the epoch to the last reading."""
        return self._last - self._start


def _means(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Of the learning rate it is the last."""
    good = [m for m in metrics if not m["skipped"]]
    if not good:
        return {}
    means = {name: sum(m[name] for m in good) / len(good) for name in good[0] if name != "skipped"}
    return means | {"lr": good[-1]["lr"]}
