"""The folder that a run leaves, and its files of numbers."""

import contextlib
import fcntl
import itertools
import json
import os
from collections.abc import Callable, Generator
from importlib import metadata
from pathlib import Path

from cnn_jax.errors import UserError
from cnn_jax.recipes.configuration import differences, read_json

MAY_CHANGE = ("data_dir:", "batch_size:", "bad_images:")  # none of them changes what is past


@contextlib.contextmanager
def open_run_folder(out: Path, config: dict, *, resume: bool) -> Generator[Callable[[], None]]:
    """Makes `out` and writes config.json, or checks that a resumed run has the same configuration.

    Inside, no other process can open the same run. A resumed run may name another data_dir, which
    says where things lie, not what they are, another batch_size, since its place is counted in images,
    and another rule for bad images. Gives the function that tells of such a change and writes it down,
    to be called once the run does go on.

    Raises:
      UserError: `out` cannot be written, holds a run already, is another configuration's run, or
        another process is at work in it.
    """
    path = out / "config.json"
    try:
        if not resume:
            out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UserError(f"cannot write to --out {out}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is at work in {out}") from None
        if resume:
            changes = differences(read_json(path), config)
            refused = [line for line in changes if not line.startswith(MAY_CHANGE)]
            if refused:
                raise UserError(f"the run in {out} has another configuration: {'; '.join(refused)}")
        elif any((out / name).exists() for name in ("config.json", "checkpoints", "metrics.jsonl")):
            raise UserError(f"{out} already holds a run: continue it with --resume, or choose another --out")
        else:
            try:
                write_json(path, config)
            except OSError as error:
                raise UserError(f"cannot write to --out {out}: {error.strerror}") from None

        def go_on() -> None:
            if resume and changes:
                print(f"{out}: goes on with {'; '.join(changes)}", flush=True)
                write_json(path, config)

        yield go_on
    finally:
        os.close(folder)


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
    part.write_text(text)
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
