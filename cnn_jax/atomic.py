"""Files that are there whole or not at all, and who makes them."""

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import IO


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


@contextlib.contextmanager
def alone(path: Path) -> Generator[None]:
    """Holds the lock file `path`, waiting for who else does. The kernel frees it when a process dies."""
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for the process that holds {path}", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):
                continue  # its owner has removed it, and a third may hold a new one
            try:
                yield
                return
            finally:
                path.unlink(missing_ok=True)


def _is_at(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
