import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from quick_jit import quick_apply, quick_init

from cnn_jax.layers import ConvBN, Inception, SqueezeExcite, Unit, avg_pool


def test_branches_are_chains_side_by_side_concatenated_in_order():
    def pool(x):
        return avg_pool(x, 3, 1, 1)

    fork = (Unit(3, (1, 3)), Unit(2, (3, 1)))
    module = Inception(((Unit(2),), (Unit(4, 3), fork), (pool, Unit(1)), (pool,)))
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 5)).astype(np.float32)
    variables = quick_init(module, x, train=False)
    kernels = {name: layer["conv"]["kernel"] for name, layer in variables["params"].items()}

    def conv(x, name, pads):
        y = lax.conv_general_dilated(x, kernels[name], (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return np.maximum(y / np.sqrt(1 + 1e-5), 0)  # fresh statistics are 0 and 1

    zero, one = (0, 0), (1, 1)
    mid = conv(x, "branch2_conv1", (one, one))
    expected = (
        conv(x, "branch1_conv1", (zero, zero)),
        conv(mid, "branch2_conv2a", (zero, one)),
        conv(mid, "branch2_conv2b", (one, zero)),
        conv(pool(x), "branch3_conv1", (zero, zero)),
        pool(x),
    )
    actual = quick_apply(module, variables, x, train=False)
    np.testing.assert_allclose(actual, np.concatenate(expected, -1), rtol=1e-5, atol=1e-5)


def test_units_without_padding_given_keep_the_size_and_padding_zero_shrinks_it():
    for unit, size in ((Unit(1, 5), 9), (Unit(1, (1, 7)), 9), (Unit(1, 3, 2, 0), 4), (Unit(1, 3, 2, 1), 5)):
        module = Inception(((unit,),), conv=ConvBN)
        out = jax.eval_shape(
            lambda m=module: m.init_with_output(jax.random.key(0), jnp.zeros((1, 9, 9, 2)), train=False)[0]
        )
        assert out.shape == (1, size, size, 1)


def test_squeeze_excitation_gates_the_concatenation():
    module = Inception(((Unit(16),), (Unit(16, 3),)), se=lambda **kw: SqueezeExcite(16, **kw))
    params = quick_init(module, jnp.zeros((1, 4, 4, 3)), train=False)["params"]
    assert params["se"]["reduce"]["kernel"].shape == (32, 2)
