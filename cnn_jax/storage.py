"""Reading and writing where an attempt may fail and the next one succeed: network file systems, gs://."""

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar

from cnn_jax.errors import Unavailable, first_line

T = TypeVar("T")

WAITS = (0.5, 1, 2, 4, 8, 16)  # seconds before another attempt
PASSING = {
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EREMOTEIO),
    *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
PASSING_STATUS = re.compile(r"\b(429|50[0234]|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|INTERNAL)\b")  # of HTTP and gRPC


def passes(error: BaseException) -> bool:
    """Whether the same attempt may succeed a little later."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in PASSING
    return isinstance(error, TimeoutError | ConnectionError) or bool(PASSING_STATUS.search(str(error)))


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
                raise Unavailable(f"{what}: {first_line(error)}, {len(waits) + 1} times") from error
        time.sleep(wait)
    raise AssertionError("unreachable")
