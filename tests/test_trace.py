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
        trace.at(0, STATE)
        for position in range(6):
            (jnp.ones((50, 50)) @ jnp.ones((50, 50))).block_until_ready()
            trace.at(position + 1, STATE)
            assert bool(traces(tmp_path)) == (position >= 3 and stop == 4)
    (perfetto,) = traces(tmp_path)
    assert json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    assert list(tmp_path.rglob("*.xplane.pb"))
    assert capsys.readouterr().out == f"{tmp_path}: a trace of steps 2 to {3 if stop == 4 else 5}\n"


@pytest.mark.parametrize(("steps", "told"), [(None, ""), ((2, 4), "no trace: step 2 was not among this process's\n")])
def test_nothing_is_traced_unless_asked_or_if_the_run_goes_on_behind_it(tmp_path, steps, told, capsys):
    with Trace(tmp_path, steps) as trace:
        for position in range(3, 7):
            trace.at(position, STATE)
    assert traces(tmp_path) == [] and capsys.readouterr().out == told
