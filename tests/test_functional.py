from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick_jit import quick_apply, quick_jit

from cnn_jax import UserError, create_model, functional

X = np.random.default_rng(0).standard_normal((4, 32, 32, 3)).astype(np.float32)
LABELS = jnp.arange(4)
SMALL = {"num_classes": 10, "stem": "cifar"}


def loss(apply):
    def of(params, batch_stats):
        logits, stats = apply(params, batch_stats, X, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean(), stats

    return of


def test_it_is_the_module_without_the_module():
    init, apply = functional("resnet18", **SMALL)
    params, batch_stats = init(jax.random.key(0), (32, 32, 3))
    logits, same = quick_jit(apply, static_argnames="train")(params, batch_stats, X, train=False)
    variables = {"params": params, "batch_stats": batch_stats}
    model = create_model("resnet18", **SMALL)
    np.testing.assert_array_equal(logits, quick_apply(model, variables, X, train=False))
    jax.tree.map(np.testing.assert_array_equal, same, batch_stats)


def test_jit_is_the_callers_choice():
    init, apply = functional("resnet20_cifar")
    params, batch_stats = init(jax.random.key(0))
    logits, same = apply(params, batch_stats, X, train=False)
    jitted = quick_jit(apply, static_argnames="train")
    np.testing.assert_allclose(jitted(params, batch_stats, X, train=False)[0], logits, rtol=1e-4, atol=1e-5)
    assert same is batch_stats


def test_training_returns_statistics_that_moved_and_leaves_the_given_ones():
    init, apply = functional("resnet18", **SMALL)
    params, batch_stats = init(jax.random.key(0), (32, 32, 3))
    _, moved = quick_jit(partial(apply, train=True))(params, batch_stats, X)
    assert not np.array_equal(moved["stem"]["norm"]["mean"], batch_stats["stem"]["norm"]["mean"])
    np.testing.assert_array_equal(batch_stats["stem"]["norm"]["mean"], np.zeros(64))


def test_rematerialisation_changes_memory_and_no_number():
    plain, rematted = (functional("resnet18", **SMALL, remat=remat) for remat in (False, True))
    params, batch_stats = plain.init(jax.random.key(0), (32, 32, 3))
    results = []
    for apply in (plain.apply, rematted.apply):
        results.append(quick_jit(jax.grad(loss(apply), has_aux=True))(params, batch_stats))
    # The backward pass sums in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *results)
    kept = [str(jax.make_jaxpr(jax.grad(loss(f.apply), has_aux=True))(params, batch_stats)) for f in (plain, rematted)]
    assert "remat" not in kept[0] and "remat" in kept[1]


def test_vmap_runs_several_seeds_at_once():
    init, apply = functional("lenet5_modern")
    images = X[..., :1]
    keys = jax.random.split(jax.random.key(0), 3)
    params, batch_stats = quick_jit(jax.vmap(init))(keys)
    several = jax.vmap(partial(apply, train=True), in_axes=(0, 0, None))
    together, _ = quick_jit(several)(params, batch_stats, images)
    for i in range(3):
        alone, _ = quick_jit(partial(apply, train=True))(*init(keys[i]), images)
        np.testing.assert_allclose(together[i], alone, rtol=1e-4, atol=1e-5)


def test_vmap_over_seeds_of_a_network_with_batch_norm():
    init, apply = functional("resnet20_cifar")
    params, batch_stats = quick_jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 2))
    value, stats = quick_jit(jax.vmap(loss(apply)))(params, batch_stats)
    assert value.shape == (2,) and stats["stem"]["norm"]["mean"].shape == (2, 16)


def test_dropout_draws_from_the_key_and_a_missing_key_is_told():
    init, apply = functional("vgg11", num_classes=10, stem="cifar")
    params, batch_stats = init(jax.random.key(0), (32, 32, 3))
    assert batch_stats == {}
    run = quick_jit(lambda params, key: apply(params, {}, X, train=True, key=key)[0])
    one, two, again = (run(params, jax.random.key(seed)) for seed in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, two)
    with pytest.raises(UserError, match=r"vgg11 has dropout: apply\(\.\.\., train=True\) needs key="):
        jax.eval_shape(lambda: apply(params, {}, X, train=True))


@pytest.mark.parametrize(
    ("name", "options", "rates"),
    [
        ("resnet18", {"stochastic_depth": 0.1}, ["stochastic_depth"]),
        ("mobilenetv2_035", {"stochastic_depth": 0.1}, ["dropout", "stochastic_depth"]),
        ("googlenet", {"dropout": 0.0, "aux_dropout": 0.7}, ["aux_dropout"]),
    ],
)
def test_a_missing_key_is_told_with_the_rates_that_need_it(name, options, rates):
    def train(**options):
        init, apply = functional(name, **SMALL, **options)
        jax.eval_shape(lambda: apply(*init(jax.random.key(0), (32, 32, 3)), X, train=True))

    without = dict.fromkeys(rates, 0.0)
    with pytest.raises(UserError) as told:
        train(**options)
    assert str(told.value).startswith(f"{name} has {', '.join(rates)}: ")
    assert str(told.value).endswith(", ".join(f"{rate}=0.0" for rate in rates))
    train(**options | without)  # auxiliary heads have no dropout either
