import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_init

from cnn_jax import UserError
from cnn_jax.layers import Conv
from cnn_jax.layers.channels import add_bias
from cnn_jax.layers.conv import convolve, convolve_blocks, padding_pairs


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
    variables = quick_init(layer, x)
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
        quick_init(Conv(8, 3, groups=4), jnp.ones((1, 5, 5, 6)))


def test_bias_can_be_left_out():
    assert set(quick_init(Conv(4, 1, use_bias=False), jnp.ones((1, 2, 2, 3)))["params"]) == {"kernel"}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "channels", "features", "groups", "padding"),
    [
        (1, 8, 12, 1, 0),
        (1, 8, 12, 1, ((1, 0), (0, 2))),
        (3, 12, 12, 12, 1),  # depthwise
        (3, 12, 24, 12, 1),  # depthwise with two outputs a channel
        (3, 96, 48, 2, 1),  # AlexNet's two towers
        (3, 128, 128, 32, 1),  # ResNeXt
        (3, 12, 18, 6, ((0, 1), (1, 0))),
        (7, 12, 5, 1, 0),  # a fully connected layer
    ],
)
def test_each_lowering_equals_the_plain_convolution(stride, kernel, channels, features, groups, padding):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 7, 7, channels)).astype(np.float32)
    w = rng.standard_normal((kernel, kernel, channels // groups, features)).astype(np.float32)
    pads = padding if isinstance(padding, tuple) else ((padding, padding),) * 2

    def plain(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), pads, feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def ours(x, w):
        return convolve(x, w, stride, padding, groups)

    np.testing.assert_allclose(ours(x, w), plain(x, w), rtol=1e-4, atol=1e-4)
    weights = rng.standard_normal(plain(x, w).shape).astype(np.float32)
    gradients = [jax.vjp(f, x, w)[1](weights) for f in (ours, plain)]
    for got, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_the_plain_grouped_convolution(platform):
    x, w = jnp.zeros((2, 7, 7, 12)), jnp.zeros((3, 3, 1, 12))
    exported = jax.export.export(jax.jit(lambda x, w: convolve(x, w, 1, 1, 12)), platforms=[platform])(x, w)
    assert exported.mlir_module().count("stablehlo.convolution") == 1
    assert "feature_group_count = 12" in exported.mlir_module()


def test_a_bias_and_its_derivatives_are_those_of_a_plain_sum():
    x, g = (jax.random.normal(jax.random.key(n), (2, 5, 4, 3)) for n in range(2))
    bias = jnp.array([0.5, -1.0, 2.0])

    def found(add):
        y, pull = jax.vjp(add, x, bias)
        _, push = jax.jvp(add, (x, bias), (g, 2 * bias))
        return y, *pull(g), push

    for own, plain in zip(found(jax.jit(add_bias)), found(lambda x, bias: x + bias), strict=True):
        np.testing.assert_allclose(own, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"),
    [
        ((16, 16), (7, 7), 2, 3),
        ((15, 18), (7, 7), 2, 3),
        ((21, 20), (11, 11), 4, 2),
        ((13, 14), (3, 3), (2, 3), ((0, 1), (2, 0))),
    ],
)
def test_by_blocks_it_is_the_same_function(size, window, stride, padding):
    """The last leaves pixels out that no window reaches."""
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    kernel = jax.random.normal(jax.random.key(1), (*window, 3, 4))

    def found(convolve):
        y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, stride, padding), x, kernel)
        return y, *pull(jnp.cos(y))

    for own, plain in zip(*map(found, (convolve_blocks, convolve)), strict=True):
        np.testing.assert_allclose(own, plain, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("option", ["groups", "dilation"])
def test_groups_and_dilations_are_not_computed_by_blocks(option):
    layer = Conv(4, 3, 2, 1, by_blocks=True, **{option: 2})
    with pytest.raises(UserError, match="with groups or a dilation is not computed by blocks"):
        jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 8, 8, 4)))
