"""A profile of a few steps."""

from pathlib import Path

import jax

from cnn_jax.training.state import TrainState


class Trace:
    """Steps `start` to `stop` - 1, counted from 0, as a trace that TensorBoard and Perfetto show.

    A context manager: leaving it ends a trace that has begun, and tells if none has.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        """Nothing is traced if `steps`, (start, stop), is None."""
        self.folder = folder
        self._start, self._stop = steps or (-1, -1)
        self._running = False
        self._done = 0  # steps, when a trace began or ended

    def at(self, position: int, state: TrainState) -> None:
        """To be called at the start and after each step: `position` steps are on their way, `state` is the last's."""
        if self._running:
            self._done = position
        if position in (self._start, self._stop):
            jax.block_until_ready(state.step)
        if position == self._start:
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self._running = True
        elif self._running and position == self._stop:
            self._end()

    def _end(self) -> None:
        self._running = False
        jax.profiler.stop_trace()
        print(f"{self.folder}: a trace of steps {self._start} to {self._done - 1}", flush=True)

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_) -> None:
        if self._running:
            self._end()
        elif self._start >= 0 and not self._done:
            print(f"no trace: step {self._start} was not among this process's", flush=True)
