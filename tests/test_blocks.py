import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.layers import ConvBN, SqueezeExcite

X = np.random.default_rng(0).standard_normal((4, 6, 6, 8)).astype(np.float32)


def test_squeeze_excite_matches_a_numpy_oracle():
    layer = SqueezeExcite(2)
    variables = layer.init(jax.random.key(0), X)
    p = jax.tree.map(np.asarray, variables["params"])
    squeezed = np.maximum(X.mean((1, 2)) @ p["reduce"]["kernel"] + p["reduce"]["bias"], 0)
    gate = 1 / (1 + np.exp(-(squeezed @ p["expand"]["kernel"] + p["expand"]["bias"])))
    np.testing.assert_allclose(layer.apply(variables, X), X * gate[:, None, None], rtol=1e-5, atol=1e-6)


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
