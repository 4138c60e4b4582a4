"""Checkpoints of the whole state: the newest and the best are kept."""

import contextlib
import logging
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from cnn_jax.errors import UserError, first_line
from cnn_jax.training.state import TrainState

BEST_BY = "test_top1"


class Checkpoints:
    """`DIR/STEP/` folders written by orbax in the background, each renamed into place when whole.

    A context manager: leaving it waits for what is being written.
    """

    def __init__(self, directory: str | Path):
        """Opens or makes `directory`; leftovers of a killed writer are removed.

        Raises:
          UserError: `directory` cannot be written, or its checkpoints cannot be listed.
        """
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax reports every file; errors come as exceptions
        self.directory = Path(directory).absolute()
        keep = policies.preservation_policy
        best = keep.BestN(get_metric_fn=lambda m: m[BEST_BY], n=1, keep_checkpoints_without_metrics=False)
        with self._telling("cannot be opened"):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.directory,
                item_handlers=ocp.StandardCheckpointHandler(),
                options=ocp.CheckpointManagerOptions(
                    best_fn=lambda metrics: metrics[BEST_BY],
                    preservation_policy=keep.AnyPreservationPolicy([keep.LatestN(1), best]),
                    todelete_subdir="deleted",  # a rename, so that a kill leaves no half-deleted step
                    cleanup_tmp_directories=True,
                ),
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        with self._telling("cannot be written"):
            self._manager.close()
        shutil.rmtree(self.directory / "deleted", ignore_errors=True)

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Saves under the state's step; `metrics` with `test_top1` let it become the best.

        Raises:
          UserError: the step, or a later one, is there already, or it cannot be written.
        """
        with self._telling("cannot be written", int(state.step)):
            saved = self._manager.save(
                int(state.step),
                args=ocp.args.StandardSave(_storable(state)),
                metrics={BEST_BY: metrics[BEST_BY]} if metrics else None,
            )
        if not saved:
            raise UserError(f"{self.directory} holds step {self.latest_step()} already; step {state.step} is not saved")
        shutil.rmtree(self.directory / "deleted", ignore_errors=True)

    def wait(self) -> None:
        """Returns when everything saved is on disk.

        Raises:
          UserError: the disk is full, or another reason why it cannot be written.
        """
        with self._telling("cannot be written"):
            self._manager.wait_until_finished()

    def latest_step(self) -> int | None:
        """The newest step on disk, None if there is none."""
        with self._telling("cannot be listed"):
            return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the highest test_top1, None if there is none."""
        return self._manager.best_step()

    def restore(self, state: TrainState, step: int) -> TrainState:
        """The state saved at `step`, laid out over devices as `state` is.

        Raises:
          UserError: the folder holds another model's or optimiser's state, or cannot be read.
        """
        target = _storable(state)
        damaged = "cannot be read (remove that folder to go on from the one before)"
        with self._telling(damaged, step):
            saved = _shapes(self._manager.item_metadata(step).tree)
        wanted = _shapes(target)
        for name in sorted(saved | wanted):
            if saved.get(name) != wanted.get(name):
                raise UserError(
                    f"checkpoint {self.directory / str(step)} is of another model or optimiser: {name} is "
                    f"{saved.get(name, 'absent')} there, {wanted.get(name, 'absent')} here"
                )
        with self._telling(damaged, step):
            restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        return restored.replace(key=jax.random.wrap_key_data(restored.key))

    @contextlib.contextmanager
    def _telling(self, what: str, step: int | None = None) -> Generator[None]:
        """Turns whatever orbax and tensorstore raise for damaged files into one line."""
        try:
            yield
        except Exception as error:
            place = self.directory if step is None else self.directory / str(step)
            raise UserError(f"checkpoint {place} {what}: {first_line(error)}") from error


def load_variables(run: str | Path, which: Literal["best", "latest"] = "best") -> dict:
    """What `model.apply` takes, from a run's folder: {"params": ..., "batch_stats": ...}, NumPy arrays.

    `which` is "best", by top-1 of what is tested after each epoch (the latest while none has been), or
    "latest". Reads only: the run may still be going on.

    Raises:
      UserError: no checkpoint there, or it cannot be read.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    directory = Path(run).absolute() / "checkpoints"
    try:
        options = ocp.CheckpointManagerOptions(read_only=True, best_fn=lambda metrics: metrics[BEST_BY])
        with ocp.CheckpointManager(directory, item_handlers=ocp.PyTreeCheckpointHandler(), options=options) as manager:
            step = manager.latest_step()
            if which == "best" and manager.best_step() is not None:
                step = manager.best_step()
            if step is None:
                raise UserError(f"{directory} holds no checkpoint yet")
            as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
            restore_args = jax.tree.map(lambda _: as_numpy, manager.item_metadata(step).tree)
            saved: Any = manager.restore(step, args=ocp.args.PyTreeRestore(restore_args=restore_args))
    except UserError:
        raise
    except Exception as error:  # whatever orbax and tensorstore raise for damaged or missing files
        raise UserError(f"cannot read a checkpoint in {directory}: {first_line(error)}") from error
    return {"params": saved["params"], "batch_stats": saved["batch_stats"]}


def _storable(state: TrainState) -> TrainState:
    """The state with its key as plain uint32 data."""
    return state.replace(key=jax.random.key_data(state.key))


def _shapes(tree) -> dict[str, tuple[int, ...]]:
    """Path -> shape, for arrays and for orbax's descriptions of them; orbax names tuples by position."""
    return {
        "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    }
