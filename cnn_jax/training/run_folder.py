"""The folder that a run leaves, and its files of numbers."""

import contextlib
import errno
import fcntl
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Generator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from cnn_jax import storage
from cnn_jax.atomic import write_json
from cnn_jax.data.dataset import Dataset
from cnn_jax.distributed import first, once
from cnn_jax.errors import Unavailable, UserError, of_system
from cnn_jax.recipes.configuration import differences, read_json
from cnn_jax.training.bucket import Copies, Lease
from cnn_jax.training.checkpoint import Checkpoints
from cnn_jax.training.hardware import Hardware
from cnn_jax.training.logs import RunLog
from cnn_jax.training.program import Program
from cnn_jax.training.state import TrainState, scalar
from cnn_jax.training.trace import Trace

LOCK, METRICS, DATASET = ".lock", "metrics.jsonl", "dataset.json"
MAY_CHANGE = ("data_dir:", "batch_size:", "bad_images:")  # none of them changes what is past


class RunFolder:
    """The folder that a run leaves, and the only one who writes to it: lock, configuration, checkpoints, log, trace.

    A context manager: inside, no other process can open the same run; leaving it waits for what is being
    written. Of several processes each has one and calls every method at the same place; the first one
    writes, and its mistakes are everybody's, while the others are silent.

    Attributes:
      place: where it is, on this machine or on gs://.
      path: where its files are written: there, or in a temporary folder, from where they are sent to gs:// each time
        that a checkpoint is whole, and in the end.
      resumed: whether the run goes on.
      checkpoints: those of the run (training.checkpoint).
      log, trace: from `begin` on.
    """

    log: RunLog
    trace: Trace

    def __init__(
        self,
        path: str | Path,
        config: dict,
        *,
        resume: Literal["no", "yes", "auto"] = "no",
        allow_change: bool = False,
    ):
        """`path` is made and gets config.json, or the run in it is checked to have the same configuration.

        "auto" goes on with a run that is there and else begins one. A resumed run may name another
        data_dir, which says where things lie, not what they are, another batch_size, since its place is
        counted in images, and another rule for bad images; with `allow_change` anything.
        """
        self.place, self.config = storage.place(path), config
        self._resume, self._allow_change = resume, allow_change
        self._lease: Lease | None = None  # both in the first process, for gs://
        self._copies: Copies | None = None

    def __enter__(self) -> "RunFolder":
        """Raises UserError: `path` cannot be written, holds a run already or is another configuration's run; this
        process was given another configuration than the first. Unavailable: another process is at work in it."""
        if once(lambda: self.config) != self.config:
            raise UserError("this process was given another recipe, options or data than the first one")
        with contextlib.ExitStack() as held:
            self.path = self.place
            if storage.is_remote(self.place):
                self.path = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="cnn_jax-")))
            self.resumed, self._changes = once(lambda: self._claim(held))
            self.checkpoints = held.enter_context(Checkpoints(self.place / "checkpoints", self._send))
            self._held = held.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._held.__exit__(*error)

    def restore(self, described: TrainState, create: Callable[[], TrainState]) -> TrainState:
        """The newest good checkpoint of a run that goes on, as Checkpoints.restore does; without one, `create()`."""
        newest = self.checkpoints.latest_step() if self.resumed else None
        return create() if newest is None else self.checkpoints.restore(described, newest)

    def is_complete(self) -> bool:
        """Whether a run has come to its end here."""
        return once((self.path / "summary.json").exists)

    def begin(
        self,
        program: Program,
        state: TrainState,
        tested: Literal["test", "validation"],
        *,
        wandb: str | None = None,
        traced: tuple[int, int] | None = None,
    ) -> None:
        """From here on the run, which starts with `state`, writes: its changed configuration, log and trace; see there.

        Raises:
          UserError: the files cannot be written, W&B does not start.
        """

        once(self._write_changes)
        options: dict[str, Any] = {"silent": True, "task": program.task}
        if first():
            hardware = Hardware(lambda: program.flops * program.config.seeds)
            options = {"task": program.task, "hardware": hardware, "wandb": wandb, "config": self.config}

        def open_log() -> None:
            log = RunLog(self.path, program.timeline, scalar(state.step), tested, named=self.place, **options)
            self.log = self._held.enter_context(log)

        once(open_log)
        if not first():
            open_log()
        self.trace = self._held.enter_context(Trace(self.path / "profile", traced if first() else None))

    def describe(self, dataset: Dataset) -> None:
        """Writes dataset.json: what the classes are called and what shape images have, for who has not the data set."""
        described = {"name": dataset.name, "classes": dataset.classes, "shape": dataset.shape}
        once(lambda: write_json(self.path / DATASET, described))

    def tested(self, step: int) -> dict[str, Any] | None:
        """What a test of the saved `step`, of the kind that this run makes, found; None if there was none."""
        noted = self.checkpoints.noted(step)
        if noted is None or noted["tested"] != self.log.tested:
            return None
        return {name: value for name, value in noted.items() if name not in ("tested", "by")}

    def note(self, step: int, found: dict[str, Any]) -> None:
        """Writes down what a test of the saved `step` found, unless that stands there."""
        if self.tested(step) != found:
            by = f"test_{self.log.task.tested[0].key}"
            self.checkpoints.note(step, found | {"tested": self.log.tested, "by": by})

    def save(self, state: TrainState) -> None:
        """Begins to save; see Checkpoints.save.

        Raises:
          Unavailable: another process has taken the folder over.
        """
        if storage.is_remote(self.place):
            once(self._check)
        self.checkpoints.save(state)

    def finish(self, summary: dict[str, Any], report: Callable[[Path, dict[str, Any]], str]) -> None:
        """Prints what `report` says, which draws pictures; then summary.json, which says that all else is there."""
        if first():
            told = report(self.path, summary)
            self._send()
            write_json(self.path / "summary.json", summary)
            self._send()
            print(told.replace(str(self.path), str(self.place)))

    def _write_changes(self) -> None:
        """Tells with what a resumed run goes on, and makes it the run's configuration."""
        if self._changes:
            print(f"{self.place}: goes on with {'; '.join(self._changes)}", flush=True)
            for folder in {self.path, self.place}:
                (folder / "summary.json").unlink(missing_ok=True)  # of the run as it was
            write_json(self.path / "config.json", self.config)
            self._send()

    def _claim(self, held: contextlib.ExitStack) -> tuple[bool, list[str]]:
        """In the first process: locks the folder. Whether the run in it goes on, and with which changes."""
        with storage.telling(f"cannot read {self.place}"):
            resumed = self._resume == "yes" or (self._resume == "auto" and (self.place / "config.json").exists())
        if self.path is self.place:
            held.enter_context(_locked(self.place, make=not resumed))
        else:
            self._lease = held.enter_context(Lease(self.place))
            self._copies = Copies(self.path, self.place)
            self._copies.fetch()
            held.callback(self._send)
        path, changes = self.path / "config.json", []
        if resumed:
            changes = differences(read_json(path), self.config)
            refused = [line for line in changes if not line.startswith(MAY_CHANGE)]
            if refused and not self._allow_change:
                raise UserError(
                    f"the run in {self.place} has another configuration: {'; '.join(refused)}; "
                    f"--allow-change goes on so"
                )
        elif path.exists():
            raise UserError(f"{self.place} already holds a run: continue it with --resume, or choose another --out")
        elif any((folder / name).exists() for folder, name in ((self.place, "checkpoints"), (self.path, METRICS))):
            raise UserError(f"{self.place} already holds a run, without its config.json; choose another --out")
        else:
            try:
                write_json(path, self.config)
            except OSError as error:
                raise of_system(f"cannot write to --out {self.place}", error) from None
            self._send()
        return resumed, changes

    def _check(self) -> None:
        assert self._lease is not None  # that is in the first process
        self._lease.check()

    def _send(self) -> None:
        """Sends what was written to where the folder is."""
        if self._copies is not None:
            self._check()
            self._copies.send()


@contextlib.contextmanager
def _locked(folder: Path, make: bool) -> Generator[None]:
    """No other process that asks for the same lock gets it; on a file, since NFS locks no folders."""
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise of_system(f"cannot write to --out {folder}", error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            os.close(lock)
            raise Unavailable(f"another process is at work in {folder}") from None
        print(f"{folder}: nothing here keeps a second process from writing, too ({error.strerror})", file=sys.stderr)
    try:
        yield
    finally:
        os.close(lock)


def new_folder(parent: Path, name: str) -> Path:
    """Makes `parent/name`, with -2, -3, ... behind it where that is taken; of several processes the first one does.

    Raises:
      UserError: it cannot be made.
    """
    return Path(once(lambda: str(_made(parent, name))))


def _made(parent: Path, name: str) -> Path:
    for number in itertools.count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            told = of_system(f"cannot make {path}", error)
            raise type(told)(f"{told}; --out DIR names another place") from None
        return path
    raise AssertionError("unreachable")


def versions() -> dict[str, str]:
    """Versions of what a run's numbers hang on; what is not installed is left out."""
    found = {}
    for name in ("cnn-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
