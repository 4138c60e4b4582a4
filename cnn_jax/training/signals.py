"""Ctrl-C and SIGTERM: before the loop they end the process at once, in it when the state is saved."""

import os
import signal
from dataclasses import dataclass

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}  # 128 + SIGINT; EX_TEMPFAIL: start me again


class Interrupted(Exception):
    """The loop ends because of a signal; the state is saved."""

    def __init__(self, signum: int, where: str):
        super().__init__(f"stopped by {signal.Signals(signum).name}{where}")
        self.exit_code = EXIT_CODES[signal.Signals(signum)]


@dataclass
class StopRequest:
    """What the loop looks at after each step.

    Attributes:
      received: the signal that came, if any.
      gentle: whether the first signal is only noted; the second always ends the process at once.
      advice: how to go on afterwards, the end of the line that tells of the signal.
    """

    received: int | None = None
    gentle: bool = False
    advice: str = " before the first step; nothing to save"


def catch_signals() -> StopRequest:
    """From here on this process answers both signals, to its end.

    At once means os._exit: an exception would be lost wherever Python runs a callback of a
    library, and tearing the interpreter down in the middle of an import or a compilation crashes.
    What is on disk then is what a kill would leave, and a resumed run copes with that.
    """
    request = StopRequest()

    def handle(signum, _frame):
        if request.gentle and request.received is None:
            request.received = signum
            return
        os.write(2, f"train.py: {Interrupted(signum, request.advice)}\n".encode())
        os._exit(EXIT_CODES[signal.Signals(signum)])

    for signum in EXIT_CODES:
        signal.signal(signum, handle)
    return request
