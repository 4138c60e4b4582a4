import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import lax
from quick_jit import quick_apply, quick_init

from cnn_jax import model_info
from cnn_jax.layers import ConvBN, Inception, SqueezeExcite, Unit, avg_pool


def test_branches_are_chains_side_by_side_concatenated_in_order():
    def pool(x):
        return avg_pool(x, 3, 1, 1)

    fork = (Unit("three_row", 3, (1, 3)), Unit("three_column", 2, (3, 1)))
    module = Inception(((Unit("one", 2),), (Unit("three", 4, 3), fork), (pool, Unit("pool_proj", 1)), (pool,)))
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 5)).astype(np.float32)
    variables = quick_init(module, x, train=False)
    kernels = {name: layer["conv"]["kernel"] for name, layer in variables["params"].items()}

    def conv(x, name, pads):
        y = lax.conv_general_dilated(x, kernels[name], (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return np.maximum(y / np.sqrt(1 + 1e-5), 0)  # fresh statistics are 0 and 1

    zero, one = (0, 0), (1, 1)
    mid = conv(x, "three", (one, one))
    expected = (
        conv(x, "one", (zero, zero)),
        conv(mid, "three_row", (zero, one)),
        conv(mid, "three_column", (one, zero)),
        conv(pool(x), "pool_proj", (zero, zero)),
        pool(x),
    )
    actual = quick_apply(module, variables, x, train=False)
    np.testing.assert_allclose(actual, np.concatenate(expected, -1), rtol=1e-5, atol=1e-5)


def test_units_without_padding_given_keep_the_size_and_padding_zero_shrinks_it():
    for unit, size in (
        (Unit("u", 1, 5), 9),
        (Unit("u", 1, (1, 7)), 9),
        (Unit("u", 1, 3, 2, 0), 4),
        (Unit("u", 1, 3, 2, 1), 5),
    ):
        module = Inception(((unit,),), conv=ConvBN)
        out = jax.eval_shape(
            lambda m=module: m.init_with_output(jax.random.key(0), jnp.zeros((1, 9, 9, 2)), train=False)[0]
        )
        assert out.shape == (1, size, size, 1)


def test_squeeze_excitation_gates_the_concatenation():
    module = Inception(((Unit("one", 16),), (Unit("three", 16, 3),)), se=lambda **kw: SqueezeExcite(16, **kw))
    params = quick_init(module, jnp.zeros((1, 4, 4, 3)), train=False)["params"]
    assert params["se"]["reduce"]["kernel"].shape == (32, 2)


WINDOWS = {
    "one|pool_proj|.*_reduce": {(1, 1)},
    "three|double[12]?|three_(wide|narrow)|seven_three": {(3, 3)},
    "five": {(5, 5)},
    "seven_row": {(1, 7)},
    "seven_column": {(7, 1)},
    "three_row": {(1, 3)},
    "three_column": {(3, 1)},
    r"double_row\d?": {(1, 3), (1, 7)},
    r"double_column\d?": {(3, 1), (7, 1)},
}


@pytest.mark.parametrize(
    "name",
    ["googlenet", "bn_inception", "inception_v3", "inception_v4", "inception_resnet_v1", "inception_resnet_v2"],
)
def test_the_names_of_branches_tell_their_windows(name):
    kernels = flatten_dict(model_info(name).structure.variables["params"])
    roles = {(path[1], leaf.shape[:2]) for path, leaf in kernels.items() if path[2:] == ("conv", "kernel")}
    roles = {(role, window) for role, window in roles if role not in ("reduce", "conv")}  # an auxiliary head's
    assert len(roles) > 5
    for role, window in roles:
        (windows,) = (windows for pattern, windows in WINDOWS.items() if re.fullmatch(pattern, role))
        assert window in windows, role
