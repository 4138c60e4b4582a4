import gzip
import json

import jax.numpy as jnp
import optax
import pytest

from cnn_jax.training.state import TrainState
from cnn_jax.training.trace import Trace

STATE = TrainState.create({"params": {"w": jnp.ones(3)}}, optax.sgd(0.1), jnp.zeros(2))


def traces(folder):
    return sorted(folder.rglob("perfetto_trace.json.gz"))


@pytest.mark.parametrize("stop", [4, 100])
def test_a_trace_is_written_for_perfetto_and_tensorboard(tmp_path, stop, capsys):
    """Also if the run ends before the trace does."""
    with Trace(tmp_path, (2, stop)) as trace:
        for position in range(6):
            trace.at(position, STATE)
            assert (position < 4 or stop == 100) or traces(tmp_path)
            (jnp.ones((50, 50)) @ jnp.ones((50, 50))).block_until_ready()
    (perfetto,) = traces(tmp_path)
    assert json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    assert list(tmp_path.rglob("*.xplane.pb"))
    assert capsys.readouterr().out == f"{tmp_path}: a trace of steps 2 to {stop - 1}\n"


def test_nothing_is_traced_unless_asked_or_if_the_run_goes_on_behind_it(tmp_path):
    for steps in (None, (2, 4)):
        with Trace(tmp_path, steps) as trace:
            for position in range(3, 6):
                trace.at(position, STATE)
    assert traces(tmp_path) == []
