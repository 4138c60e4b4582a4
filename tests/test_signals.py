import signal
import subprocess
import sys

import pytest

from cnn_jax.training.signals import Interrupted

CODE = """
import os, signal
from cnn_jax.training.signals import catch_signals

class Noisy:
    def __del__(self):
        {in_callback}

stop = catch_signals()
{code}
print("went on")
"""


def run(code="pass", in_callback="pass"):
    script = CODE.format(code=code, in_callback=in_callback)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 75)])
def test_an_early_signal_ends_the_process_at_once(name, code):
    told = f"train.py: stopped by {name} before the first step; nothing to save\n"
    assert run(f"os.kill(os.getpid(), signal.{name})") == (code, "", told)


def test_a_signal_is_not_lost_inside_a_callback():
    """Python swallows what is raised in __del__, and XLA runs a callback at every garbage collection."""
    told = "train.py: stopped by SIGTERM before the first step; nothing to save\n"
    assert run("Noisy()", "os.kill(os.getpid(), signal.SIGTERM)") == (75, "", told)


def test_a_gentle_one_is_noted_and_the_second_acts():
    code = "stop.gentle, stop.advice = True, '; go on'\nos.kill(os.getpid(), signal.SIGTERM)\nprint(stop.received)"
    assert run(code) == (0, f"{signal.SIGTERM.value}\nwent on\n", "")
    again = run(code + "\nos.kill(os.getpid(), signal.SIGINT)")
    assert again[0] == 130
    assert again[2] == "train.py: stopped by SIGINT; go on\n"


def test_the_loops_own_end_has_the_signals_exit_code():
    assert Interrupted(signal.SIGTERM, " at step 8").exit_code == 75
    assert str(Interrupted(signal.SIGINT, " at step 8")) == "stopped by SIGINT at step 8"
