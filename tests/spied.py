"""train.py, watched: python spied.py LOG OPTIONS...

Writes the images of every step that training is given to LOG. STOP="SIGNAL BATCH PATH" sends itself the signal
before that batch of training, once PATH exists (the checkpoint that is written in the background, say); STOP_IN_TEST=
"SIGNAL BATCH" before that batch of tests.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def spy(
    patch: Callable,
    told: Callable = lambda epoch, row: None,
    before_step: Callable = lambda step: None,
    before_test: Callable = lambda batch: None,
) -> None:
    """Watches both engines, by `patch(class, name, value)`.

    `told(epoch, row)` hears of the images of every step that training is given, `before_step(n)` and `before_test(n)`
    are called before the n-th batch of training and of tests that this process makes, from 0 on.
    """
    from cnn_jax.data import engines

    steps, tests = itertools.count(), itertools.count()
    for engine in (engines.OnDevice, engines.FromHost):

        def batches(self, rows, epoch=None, given=engine.batches):
            for row, batch in zip(rows, given(self, rows, epoch), strict=False):
                if epoch is None:
                    before_test(next(tests))
                else:
                    before_step(next(steps))
                    told(epoch, row.tolist())
                yield batch

        patch(engine, "batches", batches)


def signal_itself(signum: int, at: int) -> Callable:
    """For `spy`: sends this process the signal before batch `at`."""
    return lambda number: os.kill(os.getpid(), signum) if number == at else None


def stop(signum: str, at: str, path: str = "."):
    now = signal_itself(int(signum), int(at))

    def before(number):
        while number == int(at) and not os.path.exists(path):
            time.sleep(0.01)
        now(number)

    return before


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import train

    log = open(sys.argv[1], "a")  # noqa: SIM115
    moments = {"before_step": os.environ.get("STOP"), "before_test": os.environ.get("STOP_IN_TEST")}
    spy(
        setattr,
        lambda epoch, row: print(json.dumps([epoch, row]), file=log, flush=True),
        **{name: stop(*told.split()) for name, told in moments.items() if told},
    )
    code = train.main(sys.argv[2:])
    print("TENSORFLOW", "tensorflow" in sys.modules)
    sys.stdout.flush()
    os._exit(code)  # as train.py does
