import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_init, quick_jit

from cnn_jax import create_model
from cnn_jax.models.preresnet import BasicUnit
from cnn_jax.models.structure import structure

IMAGE = (32, 32, 3)


@pytest.mark.parametrize(("name", "layers", "millions"), [("wrn_40_4", 40, 8.9), ("wrn_16_8", 16, 11.0),
                                                          ("wrn_28_10", 28, 36.5)])  # fmt: skip
def test_layers_and_parameters_are_those_of_table_4(name, layers, millions):
    found = structure(create_model(name), IMAGE)
    # The paper counts the projections of the three stages: d = 6 N + 4 (sec. 2.3).
    assert sum(layer.macs > 0 for layer in found.layers) - 1 == layers
    assert round(found.params / 1e6, 1) == millions


def test_stages_have_the_sizes_of_table_1():
    taps = structure(create_model("wrn_28_10"), IMAGE).taps
    assert list(taps.values()) == [(32, 32, 16), (32, 32, 160), (16, 16, 320), (8, 8, 640), (8, 8, 640)]


def test_dropout_acts_between_the_convolutions_alone():
    unit, x = BasicUnit(4, dropout=0.5), np.random.default_rng(0).standard_normal((2, 8, 8, 4)).astype(np.float32)
    variables = quick_init(unit, x, train=False)

    @quick_jit
    def run(key):
        seen = {"mutable": ["batch_stats", "intermediates"], "capture_intermediates": True}
        return unit.apply(variables, x, train=True, rngs={"dropout": key}, **seen)

    (first, a), (second, b) = run(jax.random.key(1)), run(jax.random.key(2))
    assert not np.allclose(first, second)
    a, b = a["intermediates"], b["intermediates"]
    np.testing.assert_array_equal(a["norm2"]["__call__"][0], b["norm2"]["__call__"][0])
    dropped = np.asarray(a["dropout"]["__call__"][0])
    kept = 2 * np.maximum(a["norm2"]["__call__"][0], 0)
    np.testing.assert_allclose(dropped[dropped != 0], kept[dropped != 0], rtol=1e-6)


def test_the_dropout_option_reaches_every_unit():
    model, x = create_model("wrn_16_8", dropout=0.3), jnp.ones((2, 8, 8, 3))
    seen = []

    def record(call, args, kwargs, context):
        if type(context.module).__name__ == "Dropout" and context.method_name == "__call__":
            seen.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    assert [rate for rate in seen if rate] == [0.3] * 6
