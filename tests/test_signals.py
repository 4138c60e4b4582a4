import signal
import subprocess
import sys

import pytest
from loopback import run_script

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


SEVERAL = """
import itertools, os, signal, sys, time
from cnn_jax.training.signals import Interrupted, catch_signals
stop = catch_signals()
from cnn_jax import distributed
distributed.start(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
from jax.experimental.multihost_utils import sync_global_devices
name, when, slow = signal.Signals[sys.argv[4]], int(sys.argv[5]), not distributed.first()
hit = slow or sys.argv[6] == "both"
if when == 0 and hit:
    os.kill(os.getpid(), name)
stop.gentle, stop.advice = True, "; go on"
sync_global_devices("ready")
for step in itertools.count(1):  # until both agree
    if step == when and hit:
        os.kill(os.getpid(), name)
    time.sleep(0.02 if slow else 0)  # one process may be ahead of another
    if step % 10 == 0:
        try:
            sync_global_devices("step")
        except Exception:
            os._exit(1)  # the other one is gone
    if stop.poll():
        break
assert stop.poll()  # from then on
print(step, stop.received, file=sys.stderr)  # gloo speaks on stdout
code = Interrupted(stop.received, "").exit_code
distributed.leave(code)
os._exit(code)
"""


@pytest.mark.parametrize(("when", "who"), [(0, "one"), (15, "one"), (15, "both")])
def test_sigterm_to_one_or_both_of_two_processes_stops_both_at_the_same_step(when, who):
    """Zero: before the first step."""
    first, second = run_script(SEVERAL, 2, 1, "SIGTERM", when, who)
    assert (first.code, second.code) == (75, 75), (first.stderr, second.stderr)
    (step, received), same = ([int(word) for word in end.stderr.split()[-2:]] for end in (first, second))
    assert [step, received] == same
    assert when < step and received == signal.SIGTERM


def test_ctrl_c_ends_one_of_several_processes_at_once():
    first, second = run_script(SEVERAL, 2, 1, "SIGINT", 15, "one")
    assert second.code == 130 and second.stderr.endswith("train.py: stopped by SIGINT; go on\n")
    assert first.code == 1


def test_one_process_is_asked_for_what_it_has_received():
    code = "stop.gentle = True\nprint(stop.poll())\nos.kill(os.getpid(), signal.SIGTERM)\nprint(stop.poll())"
    assert run(code) == (0, "False\nTrue\nwent on\n", "")
