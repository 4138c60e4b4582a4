"""The folder that a run leaves, and its files of numbers."""

import contextlib
import json
import os
from importlib import metadata
from pathlib import Path

from cnn_jax.errors import UserError
from cnn_jax.recipes.configuration import differences, read_json


def open_run_folder(out: Path, config: dict, *, resume: bool) -> None:
    """Makes `out` and writes config.json, or checks that a resumed run has the same configuration.

    Raises:
      UserError: `out` cannot be written, holds a run already, or is another configuration's run.
    """
    path = out / "config.json"
    if resume:
        if not path.is_file():
            raise UserError(f"--resume found no run in {out}: {path} does not exist")
        changes = differences(read_json(path), config)
        if changes:
            raise UserError(f"the run in {out} has another configuration: {'; '.join(changes)}")
    elif path.exists():
        raise UserError(f"{out} already holds a run: continue it with --resume, or choose another --out")
    else:
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_json(path, config)
        except OSError as error:
            raise UserError(f"cannot write to --out {out}: {error.strerror}") from None


def free_name(folder: Path, name: str) -> Path:
    """`folder/name`, with -2, -3, ... behind it where that exists."""
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}"
    return path


def write_json(path: Path, values: dict) -> None:
    """Writes `path` whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(part, path)


def versions() -> dict[str, str]:
    """Versions of what a run's numbers hang on; what is not installed is left out."""
    found = {}
    for name in ("cnn-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
