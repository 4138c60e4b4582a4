"""Checkpoints of the whole state: none is lost once it is acknowledged, and none is read that is damaged.

orbax writes `DIR/STEP/` in the background and renames it into place when it is whole. Then process 0 adds
its manifest (training.manifest), without which no step counts as saved.
"""

import contextlib
import itertools
import logging
import sys
from collections.abc import Callable
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from cnn_jax import storage
from cnn_jax.distributed import first, once
from cnn_jax.errors import Unavailable, UserError, first_line
from cnn_jax.training import manifest
from cnn_jax.training.state import TrainState

KEPT = 2  # the newest; a second one in case the first turns out damaged
UNCOMMITTED = ".orbax-checkpoint-tmp"  # orbax's folders before it renames them
UNDER_WAY, DONE, FAILED = range(3)  # of a process's part of a save


class Checkpoints:
    """The checkpoints of a run in `DIR/STEP/`: the newest two and the best are kept.

    Several processes use it together, on one file system: each calls every method at the same place,
    process 0 looks at the files and decides for all. A context manager: leaving it waits for what is
    being written. `DIR/damaged/` holds what was found damaged, for a person to look at.
    """

    def __init__(self, directory: str | Path, before: Callable[[], None] = lambda: None):
        """Opens or makes `directory`, which may be on gs://; leftovers of a killed writer are removed.

        The first process calls `before` when a step is whole, just before it counts as saved, in another thread.

        Raises:
          UserError: `directory` cannot be written.
        """
        _quieten()
        self.directory = storage.place(directory, absolute=True)
        self._before = before
        self._start()
        self._writing: int | None = None  # the step that no wait() has finished
        self._sealed: futures.Future = futures.Future()  # of that step: done when its manifest is written
        self._durable: int | None = None
        self._told: int | None = None
        self._verified: set[int] = set()  # in process 0
        self._agree("cannot be opened", self._open)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None:
                self.wait()
            elif self._writing is not None:  # the other processes may be gone, and the first error is the one to tell
                failed = self._sealed.exception() is not None
                with contextlib.suppress(Exception):
                    if first():
                        self._finish(not failed)
        finally:
            self._thread.shutdown(wait=False)
            with contextlib.suppress(Exception):  # of a failed save, told already
                self._checkpointer.close()

    def save(self, state: TrainState) -> None:
        """Begins to save under the state's step; `state` may be donated as soon as this returns.

        Waits for the save before. Does nothing if this very step is saved or being saved. A failure
        is raised by the next call of `wait`, `save`, `note` or `restore`. A state of several seeds
        has a leading axis in every leaf, and one step.

        Raises:
          UserError: a later step is there already, or the save before has failed.
        """
        step = int(np.ravel(jax.device_get(state.step))[0])
        if step == self._writing:
            return
        self.wait()
        newest = self.latest_step()
        if newest == step:
            return
        if newest is not None and newest > step:
            raise UserError(f"{self.directory} holds step {newest} already; step {step} is not saved")
        self._writing = step
        try:
            if first():
                manifest.part(self._folder(step)).touch()
            self._checkpointer.save(self._folder(step), args=ocp.args.StandardSave(_storable(state)))
            self._sealed = self._thread.submit(self._seal, step)
        except Exception as error:  # told by wait(), where all processes can agree
            self._sealed = futures.Future()
            self._sealed.set_exception(error)

    def wait(self) -> None:
        """Returns when everything saved is on disk, with its manifest; then removes what is not kept.

        Raises:
          UserError: the disk is full, or another reason why it cannot be written. Nothing of the
            failed save is left, at the latest after the next one, which may succeed; with several processes, after
            a new start.
        """
        if self._writing is None:
            return
        parts = np.array([UNDER_WAY])
        while not (parts == DONE).all() and not (parts == FAILED).any():  # after a failure others wait for minutes
            futures.wait([self._sealed], timeout=0.05)
            part = UNDER_WAY if not self._sealed.done() else FAILED if self._sealed.exception() else DONE
            parts = multihost_utils.process_allgather(np.int32(part))
        try:
            self._agree("cannot be written", partial(self._finish, bool((parts == DONE).all())))
            self._durable = self._writing
        except UserError:
            self._start()  # the checkpointer would tell the rest of its errors in the next save
            raise
        finally:
            self._writing = None

    def poll(self) -> int | None:
        """The newest step that became durable since the last call, None if none did. Does not wait."""
        durable = self._durable
        if first() and self._is_sealed():
            durable = self._writing
        told, self._told = self._told, durable
        return durable if durable != told else None

    def note(self, step: int, metrics: dict[str, Any]) -> None:
        """Writes down what a test of the saved `step` found; the figure it is judged `by` decides which is the best.

        Waits for the step if it is being saved.

        Raises:
          UserError: there is no such step, its manifest is damaged, or it cannot be written.
        """
        if step == self._writing:
            self.wait()

        def write() -> None:
            folder = self._folder(step)
            manifest.write(folder, manifest.read(folder) | {"metrics": metrics})
            self._prune()

        self._agree("cannot take the result of its test", write, step)

    def noted(self, step: int) -> dict | None:
        """What `note` wrote down for `step`, None if it was never tested."""
        return self._agree("cannot be read", lambda: manifest.read_all(self.directory).get(step, {}).get("metrics"))

    def latest_step(self) -> int | None:
        """The newest step that is saved and verifies, None if there is none.

        Each newer one that does not is told in a line on stdout and moved to `DIR/damaged/`, so that
        a run can save that step again.

        Raises:
          UserError: the folder cannot be read, or a damaged step cannot be moved.
        """

        def find() -> int | None:
            faults = {}
            newest = None
            for step in reversed(manifest.steps(self.directory)):
                if step == self._writing and not self._is_sealed():
                    continue
                fault = self._fault(step)
                if fault is None:
                    newest = step
                    break
                faults[step] = fault
            for step, fault in faults.items():
                self._set_aside(step, fault, "none is left" if newest is None else "going on from the one before")
            return newest

        return self._agree("cannot be listed", find)

    def best_step(self) -> int | None:
        """The step with the highest noted figure, the earlier of equals, None if none was tested.

        It verifies; a better one that does not is told and moved as by `latest_step`.
        """

        def find() -> int | None:
            while (best := manifest.best(manifest.read_all(self.directory))) is not None:
                if (fault := self._fault(best)) is None:
                    return best
                self._set_aside(best, fault, "the next best takes its place")
            return None

        return self._agree("cannot be listed", find)

    def restore(self, state: TrainState, step: int) -> TrainState:
        """The state saved at `step`, laid out over devices as `state` is, on any number of them.

        `state` may be described by jax.ShapeDtypeStruct with shardings: its values are not looked at.

        Raises:
          UserError: the folder holds another model's or optimiser's state, is damaged or cannot be read.
        """
        self.wait()
        folder = self._folder(step)
        if fault := self._agree("cannot be read", lambda: self._fault(step), step):
            raise UserError(f"checkpoint {folder} {fault}")
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        data, impl = _key_data(target.key)
        target = target.replace(key=data)
        with self._telling("cannot be read", step):
            found: Any = self._checkpointer.metadata(folder)
            saved = _shapes(found.item_metadata.tree)
        wanted = _shapes(target)
        for name in sorted(saved | wanted):
            if saved.get(name) != wanted.get(name):
                raise UserError(
                    f"checkpoint {folder} is of another model or optimiser: {name} is "
                    f"{saved.get(name, 'absent')} there, {wanted.get(name, 'absent')} here"
                )
        with self._telling("cannot be read", step):
            restored: Any = self._checkpointer.restore(folder, args=ocp.args.StandardRestore(target))
        return restored.replace(key=jax.random.wrap_key_data(restored.key, impl=impl))

    def _start(self) -> None:
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._thread = futures.ThreadPoolExecutor(1, "manifest")

    def _folder(self, step: int | str) -> Path:
        return self.directory / str(step)

    def _open(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in (self.directory / "deleted", *self.directory.glob(f"*{UNCOMMITTED}*")):
            storage.remove(leftover)
        for part in self.directory.glob(f"*{manifest.PART}"):
            self._discard(part.name.removesuffix(manifest.PART))

    def _discard(self, step: int | str) -> None:
        """Removes what is left of a save, or of a test's result, that was never acknowledged."""
        folder = self._folder(step)
        for leftover in self.directory.glob(f"{step}{UNCOMMITTED}*"):
            storage.remove(leftover)
        if not (folder / manifest.MANIFEST).exists():
            storage.remove(folder)
        manifest.part(folder).unlink(missing_ok=True)

    def _seal(self, step: int) -> None:
        """In a thread of its own: writes the manifest as soon as orbax has committed the step."""
        self._checkpointer.wait_until_finished()
        if first():
            self._before()
            manifest.seal(self._folder(step))

    def _is_sealed(self) -> bool:
        return self._writing is not None and self._sealed.done() and self._sealed.exception() is None

    def _finish(self, saved: bool) -> None:
        """In process 0, after a save: removes what is not kept, or what a failed one left."""
        assert self._writing is not None
        if saved:
            self._verified.add(self._writing)  # its files have just been read
            self._prune()
            return
        self._discard(self._writing)
        error = self._sealed.exception() if self._sealed.done() else None
        steps = sorted(manifest.read_all(self.directory))
        intact = f"the checkpoints of steps {', '.join(map(str, steps))} are intact"
        if len(steps) < 2:
            intact = f"the checkpoint of step {steps[0]} is intact" if steps else "there is no other one"
        told = storage.told(
            f"checkpoint {self._folder(self._writing)} cannot be written", error or OSError("another process failed")
        )
        raise type(told)(f"{told}; {intact}")

    def _prune(self) -> None:
        """Removes all but the newest and the best."""
        manifests = manifest.read_all(self.directory)
        for step in manifests.keys() - {*sorted(manifests)[-KEPT:], manifest.best(manifests)}:
            self._delete(step)
        busy = "none" if self._writing is None or self._is_sealed() else str(self._writing)
        # What a thread of a failed save wrote after that was discarded.
        late = [path for path in self.directory.glob(f"*{UNCOMMITTED}*") if path.name.split(".")[0] != busy]
        for path in (self.directory / "deleted", *late):
            storage.remove(path)

    def _delete(self, step: int) -> None:
        """So that a kill leaves no step which counts and is not whole."""
        folder = self._folder(step)
        if storage.is_remote(folder):  # no renaming there
            manifest.part(folder).touch()
            (folder / manifest.MANIFEST).unlink()
            self._discard(step)
        else:
            (self.directory / "deleted").mkdir(exist_ok=True)
            folder.rename(self.directory / "deleted" / str(step))

    def _fault(self, step: int) -> str | None:
        """What is wrong with a step, looked for until it is found to be right once."""
        if step in self._verified:
            return None
        fault = manifest.fault(self._folder(step))
        if fault is None:
            self._verified.add(step)
        return fault

    def _set_aside(self, step: int, fault: str, then: str) -> None:
        """Tells of a damaged step and moves it out of the way."""
        print(f"checkpoint {self._folder(step)} {fault}; {then}", flush=True)
        aside = self.directory / "damaged"
        aside.mkdir(exist_ok=True)
        names = itertools.chain([str(step)], (f"{step}-{number}" for number in itertools.count(2)))
        storage.move(self._folder(step), next(aside / name for name in names if not (aside / name).exists()))

    def _agree(self, what: str, decide: Callable[[], Any], step: int | None = None) -> Any:
        """What `decide` returns in process 0, a JSON value, in all of them; or the error it ends in."""

        def told() -> Any:
            with self._telling(what, step):
                return decide()

        return once(told)

    def _telling(self, what: str, step: int | None = None) -> contextlib.AbstractContextManager[None]:
        """Turns whatever orbax, tensorstore and the file system raise into one line."""
        return storage.telling(f"checkpoint {self.directory if step is None else self._folder(step)} {what}")


def load_variables(run: str | Path, which: Literal["best", "latest"] = "best") -> dict:
    """What `model.apply` takes, from a run's folder, also on gs://: {"params": ..., "batch_stats": ...}, NumPy arrays.

    These are the moving averages where the run keeps some, since they are what is tested. `which` is
    "best", by top-1 of what is tested after each epoch (the latest while none has been), or "latest".
    A checkpoint that does not verify is passed over with a line on stderr. Reads only: the run may
    still be going on.

    Raises:
      UserError: no run or no checkpoint there, none that verifies, it cannot be read, or another `which`.
    """
    if which not in ("best", "latest"):
        raise UserError(f"which must be best or latest, not {which!r}")
    _quieten()
    directory = storage.place(run, absolute=True) / "checkpoints"
    faults: dict[int, str] = {}
    while left := [step for step in manifest.steps(directory) if step not in faults]:
        manifests = {step: found for step, found in manifest.read_all(directory).items() if step in left}
        best = manifest.best(manifests) if which == "best" else None
        step = left[-1] if best is None else best
        folder = directory / str(step)
        try:
            fault = manifest.fault(folder)
            if fault is None:
                return _tested(folder)
        except Exception as error:
            if isinstance(error, Unavailable) or storage.passes(error):
                raise storage.told(f"checkpoint {folder} cannot be read", error) from error
            fault = f"cannot be read: {first_line(error)}"
        if folder.exists():  # otherwise the run, going on, has just replaced it: look again
            faults[step] = fault
            print(f"checkpoint {folder} {fault}; another one is taken", file=sys.stderr, flush=True)
    if faults:
        raise UserError(f"{directory} holds no checkpoint that can be read: {max(faults)} {faults[max(faults)]}")
    if not directory.is_dir():
        raise UserError(f"{run} is no folder of a run: it has no checkpoints")
    raise UserError(f"{directory} holds no checkpoint yet")


def _tested(folder: Path) -> dict:
    """The variables that a test of this checkpoint takes."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        tree = checkpointer.metadata(folder).item_metadata.tree
        restore_args = jax.tree.map(lambda _: as_numpy, tree)
        saved: Any = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=restore_args))
    tested = saved.get("ema") or saved
    return {"params": tested["params"], "batch_stats": tested["batch_stats"]}


def _storable(state: TrainState) -> TrainState:
    """The state with its key as plain uint32 data."""
    return state.replace(key=jax.random.key_data(state.key))


def _key_data(key: Any) -> tuple[jax.ShapeDtypeStruct, Any]:
    """What _storable makes of a key that is only described, and the kind of key."""
    kinds = []

    def data(key: jax.Array) -> jax.Array:
        kinds.append(jax.random.key_impl(key))  # refuses descriptions, but not what is traced
        return jax.random.key_data(key)

    found = jax.eval_shape(data, key)
    return jax.ShapeDtypeStruct(found.shape, found.dtype, sharding=key.sharding), kinds[0]


def _shapes(tree) -> dict[str, tuple[int, ...]]:
    """Path -> shape, for arrays and for orbax's descriptions of them; orbax names tuples by position."""
    return {
        "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    }


def _quieten() -> None:
    """orbax reports every file, and abandons the tasks of a failed save; its errors come as exceptions."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_is_not_orbax)


def _is_not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in logging.Formatter().format(record)  # its message or its traceback
