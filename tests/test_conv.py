import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UserError
from cnn_jax.layers import Conv
from cnn_jax.layers.conv import padding_pairs


def oracle(x, kernel, stride, padding, groups):
    """Cross-correlation by loops, float64."""
    (sh, sw), ((top, bottom), (left, right)) = stride, padding
    x = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    kh, kw, per_group, features = kernel.shape
    height, width = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    y = np.zeros((x.shape[0], height, width, features))
    for f in range(features):
        first = f // (features // groups) * per_group
        for i in range(height):
            for j in range(width):
                patch = x[:, i * sh : i * sh + kh, j * sw : j * sw + kw, first : first + per_group]
                y[:, i, j, f] = (patch * kernel[..., f]).sum((1, 2, 3))
    return y


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups"),
    [
        (3, 1, 1, 1),
        (3, 2, 1, 2),
        (5, 2, 0, 1),
        (1, 2, 0, 4),
        (3, 1, 1, 4),  # depthwise
        ((1, 7), (1, 2), ((0, 0), (3, 3)), 1),
        (3, 2, ((0, 1), (0, 1)), 1),  # TensorFlow's SAME on an even size
    ],
)
def test_convolution_matches_a_numpy_oracle(kernel, stride, padding, groups):
    x = np.random.default_rng(0).standard_normal((2, 10, 9, 4)).astype(np.float32)
    layer = Conv(8, kernel, stride, padding, groups, bias_init=jax.nn.initializers.normal())
    variables = layer.init(jax.random.key(0), x)
    weights = variables["params"]
    both = stride if isinstance(stride, tuple) else (stride, stride)
    expected = oracle(x, np.asarray(weights["kernel"]), both, padding_pairs(padding), groups) + weights["bias"]
    np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-5, atol=1e-5)  # float32, up to 100 terms


def test_compute_type_changes_and_parameters_stay_float32():
    layer = Conv(4, 3, dtype=jnp.bfloat16)
    y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((1, 5, 5, 2)))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_channels_that_do_not_divide_by_groups_are_refused():
    with pytest.raises(UserError, match="6 input and 8 output channels must both divide by groups=4"):
        Conv(8, 3, groups=4).init(jax.random.key(0), jnp.ones((1, 5, 5, 6)))


def test_bias_can_be_left_out():
    assert set(Conv(4, 1, use_bias=False).init(jax.random.key(0), jnp.ones((1, 2, 2, 3)))["params"]) == {"kernel"}
