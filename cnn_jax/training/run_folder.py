"""The folder that a run leaves, and its files of numbers."""

import contextlib
import fcntl
import itertools
import json
import os
from collections.abc import Generator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from cnn_jax.errors import UserError
from cnn_jax.recipes.configuration import differences, read_json
from cnn_jax.training.distributed import once

MAY_CHANGE = ("data_dir:", "batch_size:", "bad_images:")  # none of them changes what is past


class Opened(NamedTuple):
    """A run's folder: whether the run goes on, and with which changes of its configuration."""

    resumed: bool
    changes: list[str]


@contextlib.contextmanager
def open_run_folder(
    out: Path, config: dict, *, resume: Literal["no", "yes", "auto"] = "no", allow_change: bool = False
) -> Generator[Opened]:
    """Makes `out` and writes config.json, or checks that a resumed run has the same configuration.

    "auto" goes on with a run that is there and else begins one. Inside, no other process can open the
    same run. A resumed run may name another data_dir, which says where things lie, not what they are,
    another batch_size, since its place is counted in images, and another rule for bad images; with
    `allow_change` anything. Of several processes the first does all this, in the name of all.

    Raises:
      UserError: `out` cannot be written, holds a run already, is another configuration's run, or
        another process is at work in it.
    """
    with contextlib.ExitStack() as held:
        yield Opened(*once(lambda: held.enter_context(_locked(out, config, resume, allow_change))))


@contextlib.contextmanager
def _locked(out: Path, config: dict, resume: str, allow_change: bool) -> Generator[Opened]:
    path = out / "config.json"
    resumed = resume == "yes" or (resume == "auto" and path.exists())
    changes = []
    try:
        if not resumed:
            out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(f"cannot write to --out {out}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is at work in {out}") from None
        if resumed:
            changes = differences(read_json(path), config)
            refused = [line for line in changes if not line.startswith(MAY_CHANGE)]
            if refused and not allow_change:
                raise UserError(
                    f"the run in {out} has another configuration: {'; '.join(refused)}; --allow-change goes on so"
                )
        elif path.exists():
            raise UserError(f"{out} already holds a run: continue it with --resume, or choose another --out")
        elif any((out / name).exists() for name in ("checkpoints", "metrics.jsonl")):
            raise UserError(f"{out} already holds a run, without its config.json; choose another --out")
        else:
            try:
                write_json(path, config)
            except OSError as error:
                raise UserError(f"cannot write to --out {out}: {error.strerror}") from None
        yield Opened(resumed, changes)
    finally:
        os.close(folder)


def write_changes(out: Path, config: dict, changes: list[str]) -> None:
    """Tells with what a resumed run goes on, and makes it the run's configuration."""
    if changes:
        print(f"{out}: goes on with {'; '.join(changes)}", flush=True)
        (out / "summary.json").unlink(missing_ok=True)  # of the run as it was
        write_json(out / "config.json", config)


def new_folder(parent: Path, name: str) -> Path:
    """Makes `parent/name`, with -2, -3, ... behind it where that is taken, and returns it.

    Raises:
      UserError: it cannot be made.
    """
    for number in itertools.count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot make {path}: {error.strerror}; --out DIR names another place") from None
        return path
    raise AssertionError("unreachable")


def write_whole(path: Path, text: str) -> None:
    """Writes `path` whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_json(path: Path, values: dict) -> None:
    """Writes an object, whole or not at all."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


def versions() -> dict[str, str]:
    """Versions of what a run's numbers hang on; what is not installed is left out."""
    found = {}
    for name in ("cnn-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
