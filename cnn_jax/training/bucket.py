"""A run on gs://: its small files are written here and sent with each checkpoint; a lease keeps others out."""

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from cnn_jax import storage
from cnn_jax.errors import Unavailable, UserError

LEASE = "lease.json"
BEAT = 5  # seconds between two signs of the holder's life
DEAD = 25  # seconds without one after which it is taken for dead; other processes of a run wait for 30


class Copies:
    """Files of `here` that are copied to `there` when they have changed. What lies below `without` is left alone."""

    def __init__(self, here: Path, there: Any, without: tuple[str, ...] = ("checkpoints/", LEASE)):
        self._here, self._there, self._without = here, there, without
        self._sent: dict[Path, tuple[int, int]] = {}
        self._one = threading.Lock()

    def fetch(self) -> None:
        """Copies what is there to here."""
        with storage.telling(f"cannot read {self._there}"):
            for name in storage.described(self._there):
                if not name.startswith(self._without):
                    path = self._here / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes((self._there / name).read_bytes())
                    self._sent[path] = _state(path)

    def send(self) -> None:
        """Copies what is new here to there.

        Raises:
          Unavailable: it cannot be written, also when tried again.
        """
        with self._one:
            for path in sorted(path for path in self._here.rglob("*") if path.is_file()):
                state = _state(path)
                if self._sent.get(path) != state:
                    to = self._there / path.relative_to(self._here).as_posix()
                    content = path.read_bytes()
                    with storage.telling(f"cannot write {to}"):
                        storage.patiently(lambda to=to, content=content: to.write_bytes(content), f"cannot write {to}")
                    self._sent[path] = state


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


class Lease:
    """Whoever holds it writes it anew every BEAT seconds; another one waits DEAD seconds for that, then it is theirs.

    Only the object's generations are looked at, no clock. Leaving it gives it back.
    """

    def __init__(self, folder: Any):
        """`folder` is on gs://."""
        from google.cloud import storage as gcs

        bucket, _, name = str(folder).removeprefix("gs://").partition("/")
        self._folder, self._bucket, self._name = folder, gcs.Client().bucket(bucket), f"{name}/{LEASE}"
        self._me = {"host": platform.node(), "process": os.getpid(), "space": _space(), "token": secrets.token_hex(8)}
        self._generation = 0
        self._lost, self._end = threading.Event(), threading.Event()
        self._beat = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> "Lease":
        """Raises Unavailable: another process is at work in the folder, or nothing answers. UserError: no right."""
        try:
            self._generation = self._awaited()
            if not self._write():  # somebody else waited, too
                raise Unavailable(f"another process is at work in {self._folder}")
        except UserError:
            raise
        except Exception as error:
            raise storage.told(f"cannot write to {self._folder}", error) from None
        self._beat.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._beat.join()
        with contextlib.suppress(Exception):  # another's by now, or out of reach: then it runs out
            self._bucket.blob(self._name).delete(if_generation_match=self._generation)

    def check(self) -> None:
        """Raises Unavailable if another process has taken the lease, because for long nothing was heard of this one."""
        if self._lost.is_set():
            raise Unavailable(f"another process has taken over {self._folder}, since it had not heard of this one")

    def _awaited(self) -> int:
        """The generation of a lease that nobody holds any more, 0 if there is none."""
        holder = self._read()
        if holder is None or (holder["space"] == self._me["space"] and not _runs(holder["process"])):
            return self._generation
        before, who = self._generation, f"process {holder['process']} of {holder['host']}"
        print(f"{self._folder} is in the hands of {who}; waiting {DEAD} s for a sign of it", flush=True)
        time.sleep(DEAD)
        if self._read() is not None and self._generation != before:
            raise Unavailable(f"another process is at work in {self._folder}: {who}")
        return self._generation

    def _read(self) -> dict[str, Any] | None:
        """Who holds it, if anybody does, and notes the generation."""
        from google.api_core.exceptions import NotFound

        found = self._bucket.get_blob(self._name)
        self._generation = found.generation if found else 0
        try:
            return found and json.loads(found.download_as_bytes())
        except NotFound:  # of this generation: the next one is there
            return self._read()

    def _write(self) -> bool:
        """Takes or keeps it, unless another one has it by now."""
        from google.api_core.exceptions import PreconditionFailed

        try:
            blob = self._bucket.blob(self._name)
            blob.upload_from_string(json.dumps(self._me), if_generation_match=self._generation)
        except PreconditionFailed:  # maybe by an attempt of ours whose answer was lost
            return self._read() == self._me
        self._generation = blob.generation
        return True

    def _live(self) -> None:
        while not self._end.wait(BEAT):
            with contextlib.suppress(Exception):  # for a while out of reach; the next beat tries again
                if not self._write():
                    return self._lost.set()


def _space() -> str:
    """In which process numbers mean the same: the host, and there a container's."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
