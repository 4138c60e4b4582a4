"""The loop over epochs and steps."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn

import jax
import numpy as np

from cnn_jax.data.engines import AHEAD, Batch
from cnn_jax.data.order import Timeline, start_of
from cnn_jax.errors import UserError
from cnn_jax.training.checkpoint import Checkpoints
from cnn_jax.training.logs import NoLog, RunLog
from cnn_jax.training.signals import Interrupted, StopRequest
from cnn_jax.training.state import TrainState, scalar
from cnn_jax.training.trace import Trace

LOG_EVERY = 20  # steps between two train records, each of which waits for the device
Heed = Callable[[Iterable[Batch]], Iterator[Batch]]


def train(
    state: TrainState,
    *,
    timeline: Timeline,
    rows: Callable[[int, int], np.ndarray],
    batches: Callable[[np.ndarray, int], Iterator[Batch]],
    waited: Callable[[], float],
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]],
    settle: Callable[[TrainState, int], TrainState],
    test: Callable[[TrainState, Heed], dict[str, Any]],
    checkpoints: Checkpoints,
    log: RunLog | NoLog,
    stop: StopRequest,
    trace: Trace,
    save_every: int = 0,
    max_skipped: int = 3,
) -> tuple[TrainState, float | None]:
    """Trains from wherever `state` stands to the end of the last epoch.

    `rows(epoch, offset)` are the image numbers of an epoch's batches from image `offset` on,
    `batches(rows, epoch)` what `step(state, batch)` trains on; `waited()` is how many seconds the loop
    has waited for batches so far. After each epoch `settle(state, epoch)` makes the state ready for a
    test, it is saved, and `test(state, heed)` gives what evaluation.summarize gives while the save goes
    on; `heed(batches)` are the same batches, until a signal comes. A state whose test was never
    finished, because the run was stopped in it, is tested first. `save_every` counts the steps between
    saves within an epoch; 0 for none.

    Returns the final state, and images/s without tests (None if no step was left).

    Raises:
      Interrupted: a signal came; the state is saved.
      UserError: `max_skipped` steps in a row met a bad number, or a test's loss is not finite; the
        state is saved. A bad image; then it is saved if there is one process: of several only one may
        have met it, and the others join no save.
    """
    position = scalar(state.step)
    start, offset = start_of(scalar(state.seen), timeline.size, timeline.batch_size)
    images, seconds = 0, 0.0
    meter = Meter(waited, timeline.batch_size)

    def longest_idle(ahead: int) -> int:
        """Writes down the finished steps that were skipped; the most of them in a row."""
        most = 0
        for at, images_of, found in meter.finished(ahead):
            if found["skipped"]:
                log.skipped(at, timeline.epoch(at), images_of.ravel().tolist(), found)
                most = max(most, int(found["skipped"]))
        return most

    def leave(error: Exception) -> NoReturn:
        longest_idle(0)
        checkpoints.save(state)
        checkpoints.wait()
        told_saves()
        raise error

    def told_saves() -> None:
        while (saved := checkpoints.poll()) is not None:
            log.write("saved", step=saved)

    def good(batches: Iterator[Batch]) -> Iterator[Batch]:
        try:
            yield from batches
        except UserError as error:  # a bad image
            if jax.process_count() > 1:
                raise
            leave(error)

    def examine(means: dict[str, float] | None) -> None:
        """Tests the state, which is saved, unless that was done."""
        noted = checkpoints.noted(position)
        if noted is None or noted["tested"] != log.tested:
            try:
                tested = test(state, partial(heed, stop, position))
            except UserError as error:  # a bad image
                if jax.process_count() > 1:
                    raise
                leave(error)
            except Interrupted as error:
                leave(error)
            if not math.isfinite(tested["test_loss"]):
                leave(UserError(f"the {log.tested} loss became {tested['test_loss']}; a lower --optimizer.lr may help"))
            noted = tested | {"tested": log.tested}
            checkpoints.note(position, noted)
        told_saves()
        record = {key.removeprefix("test_"): value for key, value in noted.items() if key != "tested"}
        log.write(log.tested, step=position, epoch=timeline.epoch(position), **record)
        log.epoch_line(position, means, record)

    if position and timeline.ends_epoch(position):
        examine(None)
    for epoch in range(start, timeline.epochs):
        numbers = rows(epoch, offset if epoch == start else 0)
        meter = Meter(waited, timeline.batch_size)  # of this epoch
        for row, batch in zip(numbers, good(batches(numbers, epoch)), strict=True):
            trace.before(position, state)
            state, metrics = step(state, batch)
            position += 1
            trace.after(position, state)
            meter.add(position, row, metrics)
            epoch_ends, stopping = timeline.ends_epoch(position), stop.poll()
            told = position % LOG_EVERY == 0 or epoch_ends or stopping
            if (idle := longest_idle(0 if told else AHEAD)) >= max_skipped:
                leave(UserError(given_up(idle, log)))
            means = meter.read() if told else None
            if means:
                log.write("train", step=position, epoch=timeline.epoch(position), **means)
            log.progress(position, means)
            told_saves()
            if stopping and not epoch_ends:
                leave(interrupted(stop, position))
            if save_every and position % save_every == 0 and not epoch_ends:
                checkpoints.save(state)
        images, seconds = images + meter.images, seconds + meter.seconds
        state = settle(state, epoch)
        checkpoints.save(state)
        if stop.poll():
            leave(interrupted(stop, position))  # its test is made on resume
        examine(meter.epoch_means())
    checkpoints.wait()
    told_saves()
    return state, images / seconds if seconds else None


def interrupted(stop: StopRequest, position: int) -> Interrupted:
    """What ends a run that is to stop and whose state is saved."""
    return Interrupted(stop.received or 0, f" at step {position}; the checkpoint is saved{stop.advice}")


def heed(stop: StopRequest, position: int, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of a test, until the run is to stop."""
    for batch in batches:
        if stop.poll():
            raise interrupted(stop, position)
        yield batch


def given_up(steps: int, log: RunLog | NoLog) -> str:
    """What is told when bad numbers do not end."""
    return (
        f"the loss or its gradient was not finite in {steps} steps in a row; none of them changed the network, which "
        f"is saved; {log.skipped_path} has their images; a lower --optimizer.lr or --optimizer.clip 1 may help, also "
        f"with --resume --allow-change"
    )


class Meter:
    """What steps return, taken from the device as they finish, and means of it."""

    def __init__(self, waited: Callable[[], float], batch_size: int):
        self.images = 0
        self._batch_size = batch_size
        self._waited = waited
        self._waited_before = waited()
        self._running: deque[tuple[int, np.ndarray, dict[str, jax.Array]]] = deque()
        self._fresh: list[dict[str, float]] = []
        self._read: list[dict[str, float]] = []
        self._start = self._last = time.perf_counter()

    def add(self, position: int, row: np.ndarray, metrics: dict[str, jax.Array]) -> None:
        """Takes a step's metrics without waiting for them; `row` are its images."""
        self._running.append((position, row, metrics))

    def finished(self, ahead: int) -> Iterator[tuple[int, np.ndarray, dict[str, float]]]:
        """Waits until no more than `ahead` steps are on their way to the device; position, images and metrics of the
        others. Of several seeds the mean counts, and the most steps that any skipped."""
        while len(self._running) > ahead:
            position, row, metrics = self._running.popleft()
            values = jax.device_get(metrics)
            found = {name: float(value.max() if name == "skipped" else value.mean()) for name, value in values.items()}
            self._fresh.append(found)
            yield position, row, found

    def read(self) -> dict[str, float]:
        """Means over the steps finished since the last reading, skipped ones left out, with speed and the share of
        time without data; empty if all were skipped."""
        now = time.perf_counter()
        spent, images = now - self._last, len(self._fresh) * self._batch_size
        wait = (self._waited() - self._waited_before) / spent
        means = _means(self._fresh)
        self._read += self._fresh
        self.images += images
        self._fresh, self._last, self._waited_before = [], now, self._waited()
        return means and means | {"images_per_s": images / spent, "data_wait": wait}

    def epoch_means(self) -> dict[str, float]:
        """Means over everything read so far; empty if all was skipped."""
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
