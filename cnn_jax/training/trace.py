"""A profile of a few steps."""

from pathlib import Path

import jax

from cnn_jax.training.state import TrainState


class Trace:
    """Steps `start` to `stop` - 1, counted from 0, as a trace that TensorBoard and Perfetto show.

    A context manager: leaving it ends a trace that has begun.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        """Nothing is traced if `steps`, (start, stop), is None."""
        self.folder = folder
        self._start, self._stop = steps or (-1, -1)
        self._running = False

    def at(self, position: int, state: TrainState) -> None:
        """To be called before each step, with the state it starts from, and after the last."""
        if position == self._start:
            jax.block_until_ready(state.step)
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self._running = True
        elif position == self._stop and self._running:
            jax.block_until_ready(state.step)
            self._end()

    def _end(self) -> None:
        self._running = False
        jax.profiler.stop_trace()
        print(f"{self.folder}: a trace of steps {self._start} to {self._stop - 1}", flush=True)

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_) -> None:
        if self._running:
            self._end()
