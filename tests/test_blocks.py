import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.layers import ConvBN, SqueezeExcite, zero_pad_shortcut

X = np.random.default_rng(0).standard_normal((4, 6, 6, 8)).astype(np.float32)


def test_squeeze_excite_matches_a_numpy_oracle():
    layer = SqueezeExcite(2)
    variables = layer.init(jax.random.key(0), X)
    p = jax.tree.map(np.asarray, variables["params"])
    squeezed = np.maximum(X.mean((1, 2)) @ p["reduce"]["kernel"] + p["reduce"]["bias"], 0)
    gate = 1 / (1 + np.exp(-(squeezed @ p["expand"]["kernel"] + p["expand"]["bias"])))
    np.testing.assert_allclose(layer.apply(variables, X), X * gate[:, None, None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "reduction", "divisor", "hidden"),
    [
        (256, 16, 1, 16),
        (64, 16, 1, 4),  # Hu 2018: C // r
        (8, 16, 1, 1),  # never none
        (64, 16, 8, 8),  # timm: the nearest multiple of 8, at least 8
        (192, 16, 8, 16),  # a half goes up
        (320, 16, 8, 24),
        (352, 16, 8, 24),
    ],
)
def test_squeeze_excite_has_the_hidden_width_of_the_paper_or_of_timm(channels, reduction, divisor, hidden):
    layer = SqueezeExcite(reduction, divisor)
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), jnp.zeros((1, 2, 2, channels))))["params"]
    assert params["reduce"]["kernel"].shape == (channels, hidden)
    assert params["expand"]["kernel"].shape == (hidden, channels)


@pytest.mark.parametrize(("size", "stride", "features"), [(6, 2, 16), (5, 2, 11), (6, 1, 8)])
def test_a_zero_pad_shortcut_takes_every_other_pixel_and_stands_amid_zeros(size, stride, features):
    x = X[:, :size, :size]
    y = np.asarray(zero_pad_shortcut(jnp.asarray(x), features, stride))
    out = -(-size // stride)
    assert y.shape == (4, out, out, features)
    before = (features - 8) // 2
    for i in range(out):
        for j in range(out):
            np.testing.assert_array_equal(y[:, i, j, before : before + 8], x[:, i * stride, j * stride])
    assert np.count_nonzero(y) == np.count_nonzero(x[:, ::stride, ::stride])


def test_conv_bn_is_convolution_then_norm_then_activation():
    layer = ConvBN(5, 3, padding=1)
    variables = layer.init(jax.random.key(0), X, train=False)
    assert set(variables["params"]) == {"conv", "norm"}
    assert set(variables["params"]["conv"]) == {"kernel"}  # the norm's bias makes a second one idle
    y, _ = layer.apply(variables, X, train=True, mutable=["batch_stats"])
    plain, _ = ConvBN(5, 3, padding=1, act=None).apply(variables, X, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(plain.mean((0, 1, 2)), np.zeros(5), atol=1e-5)
    np.testing.assert_array_equal(y, jnp.maximum(plain, 0))


def test_compute_type_reaches_every_layer():
    y = ConvBN(5, 3, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), X, train=False)[0]
    assert y.dtype == jnp.bfloat16
    assert SqueezeExcite(2, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), y)[0].dtype == jnp.bfloat16
