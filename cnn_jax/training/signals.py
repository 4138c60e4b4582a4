"""Ctrl-C and SIGTERM: before the loop they end the process at once, in it when the state is saved."""

import os
import signal
import sys
from dataclasses import dataclass

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}  # 128 + SIGINT; EX_TEMPFAIL: start me again


class Stopped(Exception):
    """A run ends before its last step, all its processes alike; its state is saved."""


class Interrupted(Stopped):
    """By a signal."""

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
      polls: how often it was asked.
    """

    received: int | None = None
    gentle: bool = False
    advice: str = " before the first step; nothing to save"
    polls: int = 0

    def poll(self) -> bool:
        """Whether to stop now. Of several processes each gets the same answer to the same call.

        Then SIGTERM, to any of them, is noted by JAX's preemption service, also before the first step;
        all stop at a call that none has made yet, which they have agreed on within seconds. All must
        call equally often. Ctrl-C they cannot share, so it ends a process at once.
        """
        self.polls += 1
        if self.received is None and _of_several():
            from jax.experimental.multihost_utils import reached_preemption_sync_point

            if reached_preemption_sync_point(self.polls):
                self.received = signal.SIGTERM
        return self.received is not None


def catch_signals() -> StopRequest:
    """From here on this process answers both signals, to its end.

    To be called before distributed.start: there JAX's preemption service takes over SIGTERM, and a
    handler installed later would keep it from the service.

    At once means os._exit: an exception would be lost wherever Python runs a callback of a
    library, and tearing the interpreter down in the middle of an import or a compilation crashes.
    What is on disk then is what a kill would leave, and a resumed run copes with that.
    """
    request = StopRequest()

    def handle(signum, _frame):
        if request.gentle and request.received is None and not _of_several():
            request.received = signum
            return
        os.write(2, f"train.py: {Interrupted(signum, request.advice)}\n".encode())
        os._exit(EXIT_CODES[signal.Signals(signum)])

    for signum in EXIT_CODES:
        signal.signal(signum, handle)
    return request


def _of_several() -> bool:
    """Whether this process has met others; it has not if the module that does it was never loaded."""
    distributed = sys.modules.get("cnn_jax.distributed")
    return distributed is not None and distributed.started()
