import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_init

from cnn_jax import UserError
from cnn_jax.layers import BatchNorm, ConvBN, LocalResponseNorm, norm
from cnn_jax.layers.lowered import lowering

X = np.random.default_rng(0).normal(3, 2, (8, 5, 6, 4)).astype(np.float32)
SCALE = np.array([0.5, 1, 1.5, 2], np.float32)
BIAS = np.array([-1, 0, 1, 2], np.float32)
MEAN, VAR = np.full(4, 2, np.float32), np.full(4, 3, np.float32)
VARIABLES = {"params": {"scale": SCALE, "bias": BIAS}, "batch_stats": {"mean": MEAN, "var": VAR}}


def normalise(x, mean, var, epsilon=1e-5):
    return (x - mean) / np.sqrt(var + epsilon) * SCALE + BIAS


def apply(layer, x=X, **options):
    y, changed = layer.apply(VARIABLES, x, mutable=["batch_stats"], **options)
    return y, changed["batch_stats"]


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_training_uses_the_batch_and_moves_the_running_statistics(epsilon):
    y, stats = apply(BatchNorm(momentum=0.9, epsilon=epsilon), train=True)
    x = X.astype(np.float64)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, normalise(x, mean, var, epsilon), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.9 * MEAN + 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 * VAR + 0.1 * var, rtol=1e-5)


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    y, stats = apply(BatchNorm(), train=False)
    np.testing.assert_allclose(y, normalise(X, MEAN, VAR), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(stats["mean"], MEAN)
    np.testing.assert_array_equal(stats["var"], VAR)


def test_unbiased_variance_follows_pytorch():
    _, stats = apply(BatchNorm(unbiased=True), train=True)
    np.testing.assert_allclose(stats["var"], 0.9 * VAR + 0.1 * X.astype(np.float64).var((0, 1, 2), ddof=1), rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("update", [False, True])
def test_using_and_updating_statistics_are_separate_switches(train, update):
    y, stats = apply(BatchNorm(update=update), train=train)
    expected = normalise(X, X.mean((0, 1, 2)), X.var((0, 1, 2))) if train else normalise(X, MEAN, VAR)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    assert (not np.array_equal(stats["mean"], MEAN)) == update


def test_batch_statistics_can_be_used_without_making_the_collection_mutable():
    y = BatchNorm().apply(VARIABLES, X, train=True)
    np.testing.assert_allclose(y, normalise(X, X.mean((0, 1, 2)), X.var((0, 1, 2))), rtol=1e-4, atol=1e-4)


def test_a_frozen_subtree_keeps_its_statistics_and_the_rest_moves():
    from functools import partial

    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            norm = partial(BatchNorm, frozen=("stem/*",))
            x = ConvBN(4, 1, norm=norm, name="stem")(x, train=train)
            return ConvBN(4, 1, norm=norm, name="stage1")(x, train=train)

    variables = quick_init(Net(), X, train=False)
    _, changed = Net().apply(variables, X, train=True, mutable=["batch_stats"])
    before, after = variables["batch_stats"], changed["batch_stats"]
    np.testing.assert_array_equal(before["stem"]["norm"]["mean"], after["stem"]["norm"]["mean"])
    assert not np.array_equal(before["stage1"]["norm"]["mean"], after["stage1"]["norm"]["mean"])


def test_groups_normalise_each_by_its_own_statistics():
    y, stats = apply(BatchNorm(group_size=2), train=True)
    groups = X.reshape(4, 2, 5, 6, 4).astype(np.float64)
    mean, var = groups.mean((1, 2, 3)), groups.var((1, 2, 3))
    expected = np.concatenate([normalise(g, m, v) for g, m, v in zip(groups, mean, var, strict=True)])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.9 * MEAN + 0.1 * mean.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 * VAR + 0.1 * var.mean(0), rtol=1e-5)


def test_a_batch_that_does_not_divide_into_groups_is_refused():
    with pytest.raises(UserError, match="a batch of 8 does not divide into batch-norm groups of 3"):
        apply(BatchNorm(group_size=3), train=True)


def test_layers_of_one_shape_are_traced_once(monkeypatch):
    traced = []
    for name in ("moments", "affine"):
        function = getattr(norm, name)
        monkeypatch.setattr(norm, name, lambda *of, call=function, name=name: traced.append(name) or call(*of))

    class Three(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(3):
                x = BatchNorm()(x, train=True)
            return x

    x = jnp.ones((3, 5, 7, 11))  # of no other test
    variables = jax.eval_shape(Three().init, jax.random.key(0), x)
    jax.eval_shape(lambda given: Three().apply(given, x, mutable=["batch_stats"]), variables)
    assert traced == ["moments", "affine"]
    with lowering("xla"):  # which decides what is traced
        jax.eval_shape(lambda given: Three().apply(given, x, mutable=["batch_stats"]), variables)
    assert traced == ["moments", "affine"] * 2


def test_variance_survives_a_large_mean():
    x = np.random.default_rng(0).normal(1000, 1, (64, 4)).astype(np.float32)
    _, stats = apply(BatchNorm(momentum=0.0), x, train=True)
    np.testing.assert_allclose(stats["var"], x.astype(np.float64).var(0), rtol=1e-4)


def test_statistics_stay_float32_under_bfloat16():
    y, stats = apply(BatchNorm(dtype=jnp.bfloat16), jnp.asarray(X, jnp.bfloat16), train=True)
    assert y.dtype == jnp.bfloat16
    assert stats["mean"].dtype == stats["var"].dtype == jnp.float32


def test_initialisation_leaves_statistics_at_zero_and_one():
    stats = quick_init(BatchNorm(), X, train=True)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], np.zeros(4))
    np.testing.assert_array_equal(stats["var"], np.ones(4))


@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("size", [5, 4, 3])
def test_local_response_norm_matches_the_printed_formula(size, divide):
    x = np.random.default_rng(0).normal(0, 30, (2, 3, 3, 11)).astype(np.float32)
    alpha = 1e-2 / size if divide else 1e-2
    expected = np.zeros(x.shape)
    for c in range(11):
        near = x[..., max(0, c - size // 2) : c + (size - 1) // 2 + 1].astype(np.float64)
        expected[..., c] = x[..., c] / (2 + alpha * (near**2).sum(-1)) ** 0.75
    layer = LocalResponseNorm(size=size, alpha=1e-2, divide_by_size=divide)
    np.testing.assert_allclose(layer.apply({}, x), expected, rtol=1e-5)


def test_both_alpha_conventions_agree_where_alpha_is_scaled():
    """torch's size=5, alpha=5e-4 is the printed formula with alpha=1e-4."""
    x = np.random.default_rng(0).normal(0, 30, (1, 2, 2, 8)).astype(np.float32)
    ours = LocalResponseNorm(alpha=1e-4).apply({}, x)
    theirs = LocalResponseNorm(alpha=5e-4, divide_by_size=True).apply({}, x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
