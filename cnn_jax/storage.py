"""Reading and writing where an attempt may fail and the next one succeed: network file systems, gs://."""

import contextlib
import errno
import importlib.util
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from cnn_jax.errors import Unavailable, UserError, first_line, lasting, of_system

T = TypeVar("T")

GCS = "https://storage.googleapis.com"
TIMEOUT = 10  # seconds without an answer

WAITS = (0.5, 1, 2, 4, 8, 16)  # seconds before another attempt
PASSING = {
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EREMOTEIO),
    *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
PASSING_STATUS = re.compile(  # in texts of C++ libraries: of gRPC, and of the client of Google that ArrayRecord has
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|Retry policy exhausted|CURL error)\b"
)


def passes(error: BaseException) -> bool:
    """Whether the same attempt may succeed a little later."""
    code = getattr(error, "code", None)  # of HTTP
    if isinstance(code, int):
        return code in (408, 429) or code >= 500
    if isinstance(error, OSError):
        return error.errno in PASSING if error.errno is not None else not lasting(error)
    told = str(error)
    return (
        type(error).__module__.startswith("aiohttp")
        or bool(PASSING_STATUS.search(told))
        or any(os.strerror(number) in told for number in PASSING)
    )


def patiently(attempt: Callable[[], T], what: str, waits: tuple[float, ...] = WAITS) -> T:
    """What `attempt` gives, which is asked again after each of `waits` seconds while its error may pass.

    Raises:
      Unavailable: it failed to the last, as `what: reason`; and at once whatever else `attempt` raises.
    """
    for wait in (*waits, None):
        try:
            return attempt()
        except Exception as error:
            if not passes(error):
                raise
            if wait is None:
                reason = getattr(error, "strerror", None) or first_line(error)
                often = f", {len(waits) + 1} times" if waits else ""
                raise Unavailable(f"{what}: {reason}{often}") from error
        time.sleep(wait)
    raise AssertionError("unreachable")


def told(what: str, error: BaseException) -> UserError:
    """Whatever a library raised as `what: reason`, Unavailable if it may pass.

    What tensorstore says of a full disk is long, and it has no numbers for errors.
    """
    if isinstance(error, UserError):
        return type(error)(f"{what}: {error}")
    for full in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(full) in str(error):
            return Unavailable(f"{what}: {os.strerror(full)}")
    if isinstance(error, OSError):
        return of_system(what, error)
    return (Unavailable if passes(error) else UserError)(f"{what}: {first_line(error)}")


@contextlib.contextmanager
def telling(what: str) -> Generator[None]:
    """Turns whatever libraries raise inside into `told`; what is told already stays."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise told(what, error) from error


def caches() -> Path:
    """This user's folder for what can be made or fetched again: below XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cnn_jax")


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is on gs://; such a one must stay a string or go through `place`, since pathlib eats a slash."""
    return os.fspath(path).startswith("gs://")


def place(path: str | os.PathLike, absolute: bool = False) -> Any:
    """A path, made `absolute` if asked for, with the methods of pathlib.Path, also where it is on gs://.

    Raises:
      UserError: on gs:// without gcsfs.
      Unavailable: nothing answers there.
    """
    if not is_remote(path):
        return Path(path).absolute() if absolute else Path(path)
    _reach(os.environ.get("STORAGE_EMULATOR_HOST", GCS), os.fspath(path))
    from etils import epath

    return epath.Path(path)


@cache
def _reach(server: str, path: str) -> None:
    """Makes sure, once, that gs:// can be used; without an answer gcsfs would try for a minute."""
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{path} needs gcsfs: pip install 'cnn-jax[gcs]'")
    import fsspec.config

    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False  # others write there, too
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # with tracebacks; its errors are told by who asks
    try:
        with contextlib.suppress(urllib.error.HTTPError):  # an answer
            urllib.request.urlopen(server, timeout=TIMEOUT).close()
    except OSError as error:
        raise Unavailable(f"cannot reach {path}: {first_line(error)}") from error


def described(folder: Any) -> dict[str, dict[str, Any]]:
    """Size in bytes and checksum of every file of a folder on gs://, as its listing tells them."""
    import fsspec

    found = fsspec.filesystem("gcs").find(str(folder), detail=True)
    start = len(str(folder).removeprefix("gs://")) + 1
    return {name[start:]: {"size": about["size"], "crc32c": about["crc32c"]} for name, about in found.items()}


def remove(path: Any) -> None:
    """Removes a folder with all that is in it, if it is there."""
    if is_remote(path):
        path.rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def move(path: Any, to: Any) -> None:
    """Moves a folder; on gs:// file by file."""
    if is_remote(path):
        import fsspec

        fsspec.filesystem("gcs").mv(str(path), str(to), recursive=True)
    else:
        path.rename(to)
