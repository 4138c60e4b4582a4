"""The loop over epochs and steps."""

import math
import time
from collections.abc import Callable

import jax
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.training.checkpoint import Checkpoints
from cnn_jax.training.logs import RunLog
from cnn_jax.training.signals import Interrupted, StopRequest
from cnn_jax.training.state import TrainState

LOG_EVERY = 20  # steps between two train records, each of which waits for the device


def train(
    state: TrainState,
    *,
    step: Callable[[TrainState, np.ndarray], tuple[TrainState, dict[str, jax.Array]]],
    test: Callable[[TrainState], dict[str, float | int]],
    rate: Callable[[TrainState, int], float],
    order: Callable[[int], np.ndarray],
    epochs: int,
    steps_per_epoch: int,
    checkpoints: Checkpoints,
    log: RunLog,
    stop: StopRequest,
) -> tuple[TrainState, float | None]:
    """Trains from wherever `state` stands to the end of the last epoch.

    `order(epoch)` gives the image numbers of every step, (steps_per_epoch, batch) int32;
    `step(state, indices)` trains on one row of it; `test(state)` gives what
    evaluation.summarize gives; `rate(state, t)` is the learning rate that step t used. After
    each epoch the network is tested and saved. A signal in `stop` saves and ends the run after the
    current step, or after the test if that step was an epoch's last.

    Returns the final state, and images/s without tests and saves (None if no step was left).

    Raises:
      Interrupted: a signal came; the state is saved.
      UserError: the loss is not finite.
    """
    position = int(state.step)
    images, seconds = 0, 0.0
    while position < epochs * steps_per_epoch:
        meter = Meter()
        for indices in order(position // steps_per_epoch)[position % steps_per_epoch :]:
            state, metrics = step(state, indices)
            position += 1
            meter.add(metrics, len(indices))
            means = None
            epoch_ends = position % steps_per_epoch == 0
            if position % LOG_EVERY == 0 or epoch_ends or stop.received:
                means = meter.read(rate(state, position - 1))
                log.write("train", step=position, epoch=position / steps_per_epoch, **means)
            log.progress(position, means)
            if stop.received and not epoch_ends:
                checkpoints.save(state)
                checkpoints.wait()
                raise Interrupted(stop.received, f" at step {position}; the checkpoint is saved{stop.advice}")
        images, seconds = images + meter.images, seconds + meter.seconds
        tested = test(state)
        check_finite("test", tested["test_loss"])
        record = {key.removeprefix("test_"): value for key, value in tested.items()}
        log.write("test", step=position, epoch=position / steps_per_epoch, **record)
        checkpoints.save(state, tested)
        log.epoch_line(position, meter.epoch_means(), record)
        if stop.received and position < epochs * steps_per_epoch:
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

    def __init__(self):
        self.images = 0
        self._fresh = 0  # images since the last reading
        self._waiting: list[dict] = []
        self._read: list[dict] = []
        self._lr = 0.0
        self._start = self._last = time.perf_counter()

    def add(self, metrics: dict[str, jax.Array], images: int) -> None:
        """Takes a step's metrics without waiting for them."""
        self._waiting.append(metrics)
        self._fresh += images

    def read(self, lr: float) -> dict[str, float]:
        """Waits; means since the last reading, with the learning rate and the speed.

        Raises:
          UserError: the loss is not finite.
        """
        waited = jax.device_get(self._waiting)
        now = time.perf_counter()
        means = _means(waited)
        check_finite("training", means["loss"])
        speed = self._fresh / (now - self._last)
        self._read += waited
        self.images += self._fresh
        self._waiting, self._fresh, self._last, self._lr = [], 0, now, lr
        return means | {"lr": lr, "images_per_s": speed}

    def epoch_means(self) -> dict[str, float]:
        """Means over everything read so far."""
        return _means(self._read) | {"lr": self._lr, "images_per_s": self.images / self.seconds}

    @property
    def seconds(self) -> float:
        """From the start of the epoch to the last reading."""
        return self._last - self._start


def _means(metrics: list[dict]) -> dict[str, float]:
    return {key: sum(float(m[key]) for m in metrics) / len(metrics) for key in metrics[0]}
