from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.layers import ConvBN, global_avg_pool
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import cross_entropy, eval_step, train_step


class Net(nn.Module):
    """Batch norm and dropout in a few parameters."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, x, *, train):
        x = global_avg_pool(ConvBN(6, 3, name="stem")(x, train=train))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(10, name="head")(x)


class NetWithAux(nn.Module):
    """A main and an auxiliary head on the mean pixel."""

    @nn.compact
    def __call__(self, x, *, train):
        x = global_avg_pool(x)
        if train or self.is_initializing():
            aux = nn.Dense(10, name="aux")(x)
            if not self.is_initializing():
                self.sow("aux_logits", "logits", aux)
        return nn.Dense(10, name="head")(x)


IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1), np.uint8)
BATCH = {"image": jnp.asarray(IMAGES), "label": jnp.arange(8) % 10, "good": jnp.ones(8, bool)}


def preprocess(images, key):
    images = images.astype(jnp.float32) / 255
    return images if key is None else images + 0.1 * jax.random.normal(key, images.shape)


def setup(net=None, optimizer=None, preprocess=preprocess):
    net, optimizer = net or Net(), optimizer or optax.with_extra_args_support(optax.sgd(0.1, 0.9))
    variables = net.init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)), train=False)
    state = TrainState.create(variables, optimizer, jax.random.key(1))
    common = {"apply": net.apply, "loss": cross_entropy, "preprocess": preprocess, "num_classes": 10}
    return state, partial(train_step, optimizer=optimizer, epoch_size=20, **common), partial(eval_step, **common)


def test_a_step_changes_everything_that_it_should():
    state, step, _ = setup()
    after, metrics = step(state, BATCH)
    assert int(after.step) == 1
    for name in ("params", "batch_stats", "opt_state"):
        before_leaves, after_leaves = (jax.tree.leaves(getattr(s, name)) for s in (state, after))
        assert any(not np.array_equal(a, b) for a, b in zip(before_leaves, after_leaves, strict=True)), name
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(after.key))
    assert set(metrics) == {"loss", "top1"}


def test_a_step_is_a_function_of_state_and_batch():
    state, step, _ = setup()
    chex.assert_trees_all_equal(*(step(state, BATCH)[0].params for _ in range(2)))


@pytest.mark.parametrize(
    ("rate", "preprocess"), [(0.0, preprocess), (0.5, lambda images, key: images / 255)], ids=["augment", "dropout"]
)
def test_each_step_draws_other_keys(rate, preprocess):
    state, step, _ = setup(Net(rate=rate), preprocess=preprocess)
    losses = {float(step(state.replace(step=jnp.int32(t)), BATCH)[1]["loss"]) for t in range(4)}
    assert len(losses) == 4


def test_loss_and_gradient_are_those_of_the_definition():
    state, step, _ = setup(Net(rate=0.0), optax.with_extra_args_support(optax.sgd(1.0)))
    key, _ = jax.random.split(jax.random.fold_in(state.key, 0))
    images = preprocess(BATCH["image"], key)

    def loss(params):
        logits, _ = Net(rate=0.0).apply(
            {"params": params, "batch_stats": state.batch_stats}, images, train=True, mutable=["batch_stats"]
        )
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(8), BATCH["label"]])

    value, grads = jax.value_and_grad(loss)(state.params)
    after, metrics = step(state, BATCH)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    by_hand = jax.tree.map(lambda w, g: w - g, state.params, grads)
    chex.assert_trees_all_close(after.params, by_hand, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_mixes_in_all_classes(smoothing):
    """q'(k) = (1 - eps) delta + eps / K (Szegedy 2016, sec. 7)."""
    state, step, _ = setup(Net(rate=0.0), preprocess=lambda images, key: images / 255)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = Net(rate=0.0).apply(variables, IMAGES / 255, train=True, mutable=["batch_stats"])
    target = (1 - smoothing) * np.eye(10)[BATCH["label"]] + smoothing / 10
    expected = -(target * np.asarray(jax.nn.log_softmax(logits))).sum(1).mean()
    _, metrics = step(state, BATCH, label_smoothing=smoothing)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_losses_fall_on_a_batch_seen_again_and_again():
    state, step, _ = setup(Net(rate=0.0))
    step, losses = jax.jit(step), []
    for _ in range(60):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.6 * losses[0]


def scripted(logits):
    """eval_step on given logits."""
    return eval_step(
        {},
        {
            "image": jnp.zeros((len(logits), 1, 1, 1)),
            "label": jnp.arange(len(logits)) % logits.shape[1],
            "good": jnp.arange(len(logits)) != 3,
        },
        apply=lambda *_, **__: jnp.asarray(logits),
        loss=cross_entropy,
        preprocess=lambda images, key: images,
        num_classes=logits.shape[1],
    )


def test_evaluation_matches_numpy():
    logits = np.random.default_rng(0).standard_normal((50, 10)).astype(np.float32)
    labels = np.arange(50) % 10
    records = scripted(logits)
    order = np.argsort(-logits, 1)
    np.testing.assert_array_equal(records["guess"], order[:, 0])
    np.testing.assert_array_equal(records["label"], labels)
    np.testing.assert_array_equal(records["good"], np.arange(50) != 3)
    np.testing.assert_array_equal(records["top1"], order[:, 0] == labels)
    np.testing.assert_array_equal(records["top5"], (order[:, :5] == labels[:, None]).any(1))
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(records["confidence"], probability.max(1), rtol=1e-5)
    np.testing.assert_allclose(records["loss"], -np.log(probability[np.arange(50), labels]), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_dead_network_is_right_by_chance_only(value):
    records = scripted(np.full((50, 10), value, np.float32))
    assert records["top1"].sum() == 5 and records["top5"].sum() == 25


def test_top5_of_three_classes_is_everything():
    assert scripted(np.eye(3, dtype=np.float32))["top5"].all()


def test_evaluation_is_without_dropout_and_augmentation():
    state, _, evaluate = setup()
    logits = Net(rate=0.0).apply(state.variables, IMAGES / 255, train=False)
    expected = -np.asarray(jax.nn.log_softmax(logits))[np.arange(8), BATCH["label"]]
    np.testing.assert_allclose(evaluate(state.variables, BATCH)["loss"], expected, rtol=1e-5)


def test_auxiliary_losses_count_for_three_tenths():
    """Szegedy 2014, sec. 5."""
    state, step, _ = setup(
        NetWithAux(), optax.with_extra_args_support(optax.sgd(1.0)), lambda images, key: images / 255
    )
    after, metrics = jax.jit(step)(state, BATCH)
    pixel = (IMAGES / 255).mean((1, 2))
    losses = {}
    for name in ("head", "aux"):
        layer = jax.tree.map(np.asarray, state.params[name])
        logits = pixel @ layer["kernel"] + layer["bias"]
        wrong = np.asarray(jax.nn.softmax(logits)) - np.eye(10)[BATCH["label"]]
        losses[name] = -np.log(np.asarray(jax.nn.softmax(logits)))[np.arange(8), BATCH["label"]].mean()
        share = 1.0 if name == "head" else 0.3
        moved = layer["bias"] - after.params[name]["bias"]
        np.testing.assert_allclose(moved, share * wrong.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], losses["head"] + 0.3 * losses["aux"], rtol=1e-5)


def test_the_place_in_the_data_is_counted_in_images():
    """Epochs of 20 images, batches of 8: two a epoch, four images pass by."""
    state, step, _ = setup()
    places = []
    for _ in range(5):
        state, _ = step(state, BATCH)
        places.append(int(state.seen))
    assert places == [8, 20, 28, 40, 48]
    resumed, _ = step(state.replace(seen=jnp.uint32(15)), BATCH)  # of a run with smaller batches; five were left
    assert int(resumed.seen) == 28


def test_mixed_images_have_mixed_labels():
    state, step, _ = setup(preprocess=lambda images, key: images / 255)

    def mix(key, images, labels):
        return 0.7 * images + 0.3 * images[::-1], 0.7 * labels + 0.3 * labels[::-1]

    _, mixed = step(state, BATCH, mix=mix)
    halves = [
        step(state, BATCH | {"image": mix(None, IMAGES, jnp.eye(8))[0], "label": BATCH["label"][::way]})[1]
        for way in (1, -1)
    ]
    np.testing.assert_allclose(mixed["loss"], 0.7 * halves[0]["loss"] + 0.3 * halves[1]["loss"], rtol=1e-5)
