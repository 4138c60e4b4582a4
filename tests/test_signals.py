import os
import signal

import pytest

from cnn_jax.training.signals import Interrupted, catch_signals


def send(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_an_early_signal_acts_at_once(signum, code):
    with pytest.raises(Interrupted) as interrupted, catch_signals():
        send(signum)
    assert str(interrupted.value) == f"stopped by {signum.name} before the first step; nothing to save"
    assert interrupted.value.exit_code == code


def test_a_gentle_one_is_noted_and_the_second_acts():
    with pytest.raises(Interrupted, match="stopped by SIGINT; go on"), catch_signals() as stop:
        stop.gentle, stop.advice = True, "; go on"
        send(signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        send(signal.SIGINT)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with catch_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_handler_of_exceptions_swallows_it():
    assert not issubclass(Interrupted, Exception)
