"""Networks that scan over their blocks against the same without."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import UserError, create_model, fold_batch_norm, stack_blocks, unstack_blocks

IMAGES = np.random.default_rng(0).standard_normal((4, 16, 16, 3)).astype(np.float32)
NETWORKS = {
    "resnet32_cifar": {"zero_init": True},
    "resnet34": {"stem": "cifar", "num_classes": 10},
    "legacy_seresnext50_32x4d": {"stem": "cifar", "num_classes": 10, "remat": ("stage2*",)},
}
each = pytest.mark.parametrize(
    "name", [name if "cifar" in name else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)


def both(name):
    """The network, its variables, and the same network with scan."""
    model = create_model(name, **NETWORKS[name])
    return model, quick_init(model, IMAGES, train=False), create_model(name, **NETWORKS[name], scan=True)


def assert_near(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=0, atol=2e-4 * max(np.abs(b).max(), 1e-3)
        ),  # float32 rounding
        found,
        expected,
    )


@each
def test_logits_statistics_and_gradients_are_those_without_scan(name):
    model, variables, scanned = both(name)

    def step(model):
        @quick_jit
        def of(variables):
            def loss(params):
                given = variables | {"params": params}
                logits, changed = model.apply(given, IMAGES, train=True, mutable=["batch_stats"])
                return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4)).mean(), changed

            (value, changed), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
            return value, changed | {"params": gradients}

        return of

    value, changed = step(scanned)(stack_blocks(variables))
    assert_near((value, unstack_blocks(changed)), step(model)(variables))


@each
def test_variables_come_back_bit_for_bit_and_have_the_shapes_of_init(name):
    model, variables, scanned = both(name)
    stacked = stack_blocks(variables)
    own = jax.eval_shape(lambda: scanned.init(jax.random.key(0), IMAGES, train=False))
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, own)
    again = unstack_blocks(stacked)
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_blocks_start_from_values_of_their_own():
    _, _, scanned = both("resnet32_cifar")
    kernel = quick_init(scanned, IMAGES, train=False)["params"]["stage1_rest"]["conv1"]["conv"]["kernel"]
    assert kernel.shape == (4, 3, 3, 16, 16) and np.std(kernel, axis=0).min() > 0
    np.testing.assert_allclose(
        np.std(kernel, axis=(1, 2, 3, 4)), (2 / (9 * 16)) ** 0.5, rtol=0.1
    )  # of one block's fan-in


def test_scanned_blocks_are_folded_too():
    model, variables, scanned = both("resnet32_cifar")
    rng = np.random.default_rng(1)

    def moved(leaf):
        """Kernels stay: 32 layers of larger ones overflow."""
        return leaf + rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32) if leaf.ndim == 1 else leaf

    variables = jax.tree.map(moved, variables)
    folded, merged = fold_batch_norm(scanned, stack_blocks(variables))
    assert "scale" not in merged["params"]["stage1_rest"]["conv1"]["norm"]
    expected = quick_apply(model, variables, IMAGES, train=False)
    assert np.isfinite(expected).all() and np.std(expected, axis=0).min() > 0
    assert_near(quick_apply(folded, merged, IMAGES, train=False), expected)


def test_stochastic_depth_and_scan_are_told_apart():
    with pytest.raises(UserError, match="scan runs equal blocks, and stochastic_depth gives each a rate"):
        create_model("resnet20_cifar", scan=True, stochastic_depth=0.1).init(jax.random.key(0), IMAGES, train=False)
