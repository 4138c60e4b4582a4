from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax.layers import ConvBN, SqueezeExcite, classify, depth_rates, drop_branch, zero_pad_shortcut

X = np.random.default_rng(0).standard_normal((4, 6, 6, 8)).astype(np.float32)


def test_squeeze_excite_matches_a_numpy_oracle():
    layer = SqueezeExcite(2)
    variables = quick_init(layer, X)
    p = jax.tree.map(np.asarray, variables["params"])
    squeezed = np.maximum(X.mean((1, 2)) @ p["reduce"]["kernel"] + p["reduce"]["bias"], 0)
    gate = 1 / (1 + np.exp(-(squeezed @ p["expand"]["kernel"] + p["expand"]["bias"])))
    np.testing.assert_allclose(quick_apply(layer, variables, X), X * gate[:, None, None], rtol=1e-5, atol=1e-6)


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
    variables = quick_init(layer, X, train=False)
    assert set(variables["params"]) == {"conv", "norm"}
    assert set(variables["params"]["conv"]) == {"kernel"}  # the norm's bias makes a second one idle
    y, _ = quick_apply(layer, variables, X, train=True, mutable=["batch_stats"])
    plain, _ = quick_apply(ConvBN(5, 3, padding=1, act=None), variables, X, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(plain.mean((0, 1, 2)), np.zeros(5), atol=1e-5)
    np.testing.assert_array_equal(y, jnp.maximum(plain, 0))


def test_compute_type_reaches_every_layer():
    y = ConvBN(5, 3, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), X, train=False)[0]
    assert y.dtype == jnp.bfloat16
    assert SqueezeExcite(2, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), y)[0].dtype == jnp.bfloat16


class Branch(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, *, train):
        return drop_branch(x, self.rate, train=train)


def dropped(rate, keys, batch=4):
    """Which images of `batch` drop_branch takes away, (keys, batch), after a look at what it leaves."""
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (batch, 3, 3, 2)), jnp.float32)
    run = lambda key: Branch(rate).apply({}, x, train=True, rngs={"dropout": key})
    y = np.asarray(quick_jit(jax.vmap(run))(jax.random.split(jax.random.key(0), keys)))
    gone = y[:, :, 0, 0, 0] == 0
    np.testing.assert_allclose(y, np.where(gone[..., None, None, None], 0, x / (1 - rate)), rtol=1e-6)
    return gone


def test_a_dropped_branch_is_zero_for_whole_images_and_keeps_its_mean():
    gone = dropped(0.3, keys=5000)
    # 20,000 draws: a standard error of 0.003. A mean over keys of x / 0.7 for 70% of them is x.
    assert abs(gone.mean() - 0.3) < 0.015


def test_images_survive_independently():
    gone = dropped(0.5, keys=5000)
    # Correlations of 5,000 draws have a standard error of 0.014.
    np.testing.assert_allclose(np.corrcoef(gone.T), np.eye(4), atol=0.07)


def test_a_branch_is_left_alone_in_evaluation_and_at_rate_0():
    for branch, train in ((Branch(0.5), False), (Branch(0.0), True)):
        assert not jax.make_jaxpr(partial(branch.apply, {}, train=train))(X).eqns  # and no key is asked for


def test_rates_rise_linearly_to_the_last_one():
    assert list(depth_rates(4, 0.5)) == [0.125, 0.25, 0.375, 0.5]
    # Huang 2016, sec. 3: with half the last blocks dropped (3 L - 1) / 4 blocks are left on average.
    for blocks in (1, 54):
        assert sum(1 - rate for rate in depth_rates(blocks, 0.5)) == pytest.approx((3 * blocks - 1) / 4)
    assert not any(depth_rates(54, 0.0))


def test_conv_bn_starts_at_zero_if_asked():
    for zero_init, scale in ((False, 1), (True, 0)):
        y, variables = ConvBN(5, 3, act=None, zero_init=zero_init).init_with_output(jax.random.key(0), X, train=False)
        np.testing.assert_array_equal(variables["params"]["norm"]["scale"], np.full(5, scale))
        assert np.any(y) != zero_init


def test_a_head_in_bfloat16_rounds_its_inputs_and_not_its_logits():
    class Head(nn.Module):
        @nn.compact
        def __call__(self, x):
            return classify(x, 50, train=False, dtype=jnp.bfloat16)

    x = np.random.default_rng(0).standard_normal((8, 64)).astype(jnp.bfloat16)
    variables = quick_init(Head(), x)
    kernel = np.asarray(variables["params"]["head"]["kernel"].astype(jnp.bfloat16), np.float64)
    logits = quick_apply(Head(), variables, x)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, x.astype(np.float64) @ kernel, rtol=1e-4, atol=1e-5)  # float32 over 64 products
