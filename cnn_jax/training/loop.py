"""The loop over epochs and steps."""

import math
import time
from collections.abc import Callable, Iterator

import jax

from cnn_jax.data.engines import AHEAD, Batch
from cnn_jax.data.order import Timeline, start_of
from cnn_jax.errors import UserError
from cnn_jax.training.checkpoint import Checkpoints
from cnn_jax.training.logs import RunLog
from cnn_jax.training.signals import Interrupted, StopRequest
from cnn_jax.training.state import TrainState

LOG_EVERY = 20  # steps between two train records, each of which waits for the device


def train(
    state: TrainState,
    *,
    timeline: Timeline,
    batches: Callable[[int, int], Iterator[Batch]],
    waited: Callable[[], float],
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]],
    test: Callable[[TrainState], dict[str, float | int]],
    rate: Callable[[TrainState, int], float],
    checkpoints: Checkpoints,
    log: RunLog,
    stop: StopRequest,
) -> tuple[TrainState, float | None]:
    """Trains from wherever `state` stands to the end of the last epoch.

    `batches(epoch, offset)` gives what `step(state, batch)` trains on, from image `offset` of the
    epoch's order on; `waited()` is how many seconds it has kept the loop waiting so far;
    `test(state)` gives what evaluation.summarize gives; `rate(state, t)` is the learning rate that
    step t used. After each epoch the network is tested and saved. A signal in `stop` saves and ends the run after the
    current step, or after the test if that step was an epoch's last.

    Returns the final state, and images/s without tests and saves (None if no step was left).

    Raises:
      Interrupted: a signal came; the state is saved.
      UserError: the loss is not finite.
    """
    position = int(state.step)
    start, offset = start_of(int(state.seen), timeline.size, timeline.batch_size)
    images, seconds, saved = 0, 0.0, position

    def or_save(batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; before an error of theirs ends the run, the place is saved."""
        try:
            yield from batches
        except UserError:
            if position > saved:
                checkpoints.save(state)
                checkpoints.wait()
            raise

    for epoch in range(start, timeline.epochs):
        meter = Meter(waited)
        for batch in or_save(batches(epoch, offset if epoch == start else 0)):
            state, metrics = step(state, batch)
            position += 1
            meter.add(metrics, timeline.batch_size)
            meter.hold(AHEAD)
            means = None
            epoch_ends = timeline.ends_epoch(position)
            if position % LOG_EVERY == 0 or epoch_ends or stop.received:
                means = meter.read(rate(state, position - 1))
                log.write("train", step=position, epoch=timeline.epoch(position), **means)
            log.progress(position, means)
            if stop.received and not epoch_ends:
                checkpoints.save(state)
                checkpoints.wait()
                raise Interrupted(stop.received, f" at step {position}; the checkpoint is saved{stop.advice}")
        images, seconds = images + meter.images, seconds + meter.seconds
        try:
            tested = test(state)
        except UserError:  # such as a bad image; the epoch is not lost
            checkpoints.save(state)
            checkpoints.wait()
            raise
        check_finite(log.tested, tested["test_loss"])
        record = {key.removeprefix("test_"): value for key, value in tested.items()}
        log.write(log.tested, step=position, epoch=timeline.epoch(position), **record)
        checkpoints.save(state, tested)
        saved = position
        log.epoch_line(position, meter.epoch_means(), record)
        if stop.received and position < timeline.steps:
            checkpoints.wait()
            raise Interrupted(stop.received, f" at step {position}; the checkpoint is saved{stop.advice}")
    checkpoints.wait()
    return state, images / seconds if seconds else None


def check_finite(kind: str, loss: float) -> None:
    """Raises a UserError unless the loss is a number."""
    if not math.isfinite(loss):
        raise UserError(f"the {kind} loss became {loss}; a lower --optimizer.lr may help")


class Meter:
    """Means of an epoch's metrics, which stay on the device until they are read."""

    def __init__(self, waited: Callable[[], float]):
        self.images = 0
        self._waited = waited
        self._waited_before = waited()
        self._fresh = 0  # images since the last reading
        self._waiting: list[dict] = []
        self._read: list[dict] = []
        self._lr = 0.0
        self._start = self._last = time.perf_counter()

    def add(self, metrics: dict[str, jax.Array], images: int) -> None:
        """Takes a step's metrics without waiting for them."""
        self._waiting.append(metrics)
        self._fresh += images

    def hold(self, ahead: int) -> None:
        """Waits until no more than `ahead` steps are on their way to the device, and with them their batches."""
        if len(self._waiting) > ahead:
            jax.block_until_ready(self._waiting[-1 - ahead])

    def read(self, lr: float) -> dict[str, float]:
        """Waits; means since the last reading, with the learning rate, the speed and the share of time without data.

        Raises:
          UserError: the loss is not finite.
        """
        waited = jax.device_get(self._waiting)
        now = time.perf_counter()
        means = _means(waited)
        check_finite("training", means["loss"])
        speed = self._fresh / (now - self._last)
        wait = (self._waited() - self._waited_before) / (now - self._last)
        self._waited_before = self._waited()
        self._read += waited
        self.images += self._fresh
        self._waiting, self._fresh, self._last, self._lr = [], 0, now, lr
        return means | {"lr": lr, "images_per_s": speed, "data_wait": wait}

    def epoch_means(self) -> dict[str, float]:
        """Means over everything read so far."""
        return _means(self._read) | {"lr": self._lr, "images_per_s": self.images / self.seconds}

    @property
    def seconds(self) -> float:
        """From the start of the epoch to the last reading."""
        return self._last - self._start


def _means(metrics: list[dict]) -> dict[str, float]:
    return {key: sum(float(m[key]) for m in metrics) / len(metrics) for key in metrics[0]}
