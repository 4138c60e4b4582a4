"""Ctrl-C and SIGTERM: an early one ends the run at once, a later one when the state is saved."""

import contextlib
import signal
from collections.abc import Generator
from dataclasses import dataclass

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}  # 128 + SIGINT; EX_TEMPFAIL: start me again


class Interrupted(BaseException):
    """A signal ends the run. Like KeyboardInterrupt it is no Exception, so that none swallows it."""

    def __init__(self, signum: int, where: str):
        super().__init__(f"stopped by {signal.Signals(signum).name}{where}")
        self.exit_code = EXIT_CODES[signal.Signals(signum)]


@dataclass
class StopRequest:
    """What the loop looks at after each step.

    Attributes:
      received: the signal that came, if any.
      gentle: whether the first signal is only noted; the second always acts at once.
      advice: how to go on afterwards, the end of the line that tells of the signal.
    """

    received: int | None = None
    gentle: bool = False
    advice: str = " before the first step; nothing to save"


@contextlib.contextmanager
def catch_signals() -> Generator[StopRequest]:
    """Inside, signals go to the StopRequest that is yielded, or raise Interrupted."""
    request = StopRequest()

    def handle(signum, _frame):
        if not request.gentle or request.received is not None:
            raise Interrupted(signum, request.advice)
        request.received = signum

    previous = {signum: signal.signal(signum, handle) for signum in EXIT_CODES}
    try:
        yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
