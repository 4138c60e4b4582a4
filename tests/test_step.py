from collections.abc import Callable
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UserError
from cnn_jax.data.order import Timeline
from cnn_jax.layers import BatchNorm, ConvBN, global_avg_pool
from cnn_jax.recipes import Optimizer, Recipe, Schedule
from cnn_jax.training.program import Program
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import eval_step, moments_step, precise_statistics, train_step


class Net(nn.Module):
    """Batch norm and dropout in a few parameters."""

    rate: float = 0.5
    norm: Callable = BatchNorm

    @nn.compact
    def __call__(self, x, *, train):
        x = global_avg_pool(ConvBN(6, 3, norm=self.norm, name="stem")(x, train=train))
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


def without_key(images, key):
    return images / 255


def program(net=None, classes=10, **changes):
    """A recipe's, for epochs of 20 images in batches of 8, with another network; `changes` are of values or parts."""
    moves = {name: changes.pop(name) for name in ("lr", "momentum", "ema", "accumulate") if name in changes}
    parts = {name: changes.pop(name) for name in ("preprocess", "criterion", "mix") if name in changes}
    optimizer = Optimizer(**{"lr": 0.1, "momentum": 0.9} | moves)
    config = Recipe(model="lenet5_modern", optimizer=optimizer, schedule=Schedule(kind="constant"), **changes)
    made = Program(config, Timeline(20, 8, 1), classes, channels=1)
    vars(made)["apply"] = (net or Net()).apply  # in place of what is cached
    vars(made.task).update({"preprocess": preprocess} | parts)
    return made


def setup(net=None, **changes):
    """A state, a step and a test of such a program."""
    made = program(net, **changes)
    variables = (net or Net()).init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)), train=False)
    state = TrainState.create(variables, made.optimizer, jax.random.key(1), ema=made.config.optimizer.ema > 0)
    return state, partial(train_step, made), partial(eval_step, made)


def test_a_step_changes_everything_that_it_should():
    state, step, _ = setup()
    after, metrics = step(state, BATCH)
    assert int(after.step) == 1
    for name in ("params", "batch_stats", "opt_state"):
        before_leaves, after_leaves = (jax.tree.leaves(getattr(s, name)) for s in (state, after))
        assert any(not np.array_equal(a, b) for a, b in zip(before_leaves, after_leaves, strict=True)), name
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(after.key))
    assert set(metrics) == {"loss", "figure", "grad_norm", "lr", "skipped"}


def test_a_step_is_a_function_of_state_and_batch():
    state, step, _ = setup()
    chex.assert_trees_all_equal(*(step(state, BATCH)[0].params for _ in range(2)))


@pytest.mark.parametrize(("rate", "preprocess"), [(0.0, preprocess), (0.5, without_key)], ids=["augment", "dropout"])
def test_each_step_draws_other_keys(rate, preprocess):
    state, step, _ = setup(Net(rate=rate), preprocess=preprocess)
    losses = {float(step(state.replace(step=jnp.int32(t)), BATCH)[1]["loss"]) for t in range(4)}
    assert len(losses) == 4


def test_loss_and_gradient_are_those_of_the_definition():
    state, step, _ = setup(Net(rate=0.0), lr=1.0, momentum=0.0)
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
    state, step, _ = setup(Net(rate=0.0), preprocess=without_key, label_smoothing=smoothing)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = Net(rate=0.0).apply(variables, IMAGES / 255, train=True, mutable=["batch_stats"])
    target = (1 - smoothing) * np.eye(10)[BATCH["label"]] + smoothing / 10
    expected = -(target * np.asarray(jax.nn.log_softmax(logits))).sum(1).mean()
    _, metrics = step(state, BATCH)
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
    made = program(preprocess=lambda images, key: images, classes=logits.shape[1])
    vars(made)["apply"] = lambda *_, **__: jnp.asarray(logits)
    batch = {
        "image": jnp.zeros((len(logits), 1, 1, 1)),
        "label": jnp.arange(len(logits)) % logits.shape[1],
        "good": jnp.arange(len(logits)) != 3,
    }
    return eval_step(made, {}, batch)


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
    state, step, _ = setup(NetWithAux(), lr=1.0, momentum=0.0, preprocess=without_key)
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
    state, *_ = setup()

    def mix(key, images, labels):
        return 0.7 * images + 0.3 * images[::-1], 0.7 * labels + 0.3 * labels[::-1]

    def blended(images, key):
        return mix(None, images / 255, jnp.eye(8))[0]

    _, mixed = setup(preprocess=without_key, mix=mix)[1](state, BATCH)
    step = setup(preprocess=blended)[1]
    halves = [step(state, BATCH | {"label": BATCH["label"][::way]})[1] for way in (1, -1)]
    np.testing.assert_allclose(mixed["loss"], 0.7 * halves[0]["loss"] + 0.3 * halves[1]["loss"], rtol=1e-5)


def test_a_bad_number_changes_nothing_but_the_count():
    """An infinite pixel: loss, gradient, statistics and averages are all lost, and none of it stays."""
    state, step, _ = setup(ema=0.9)
    state, _ = jax.jit(step)(state, BATCH)

    def poisoned(images, key):
        return preprocess(images, key).at[3, 0, 0, 0].set(jnp.inf)

    poisoned_step = jax.jit(setup(ema=0.9, preprocess=poisoned)[1])
    after, metrics = poisoned_step(state, BATCH)
    assert not np.isfinite(metrics["loss"]) and int(metrics["skipped"]) == int(after.skipped) == 1
    assert (int(after.step), int(after.seen)) == (2, 20)
    counted = {"step": 0, "seen": 0, "skipped": 0, "key": 0}
    chex.assert_trees_all_equal(after.replace(**counted), state.replace(**counted))
    again, _ = poisoned_step(after, BATCH)
    assert int(again.skipped) == 2
    good, metrics = jax.jit(step)(again, BATCH)
    assert int(good.skipped) == int(metrics["skipped"]) == 0 and np.isfinite(metrics["loss"])


def test_an_infinite_gradient_of_a_finite_loss_is_skipped_too():
    def steep(logits, labels):  # its value is 1, its slope at the logits infinite
        return 1 + jnp.sqrt(jnp.abs(logits - jax.lax.stop_gradient(logits))).sum(-1)

    state, step, _ = setup(Net(rate=0.0), preprocess=without_key, criterion=steep)
    after, metrics = step(state, BATCH)
    assert float(metrics["loss"]) == 1 and int(after.skipped) == 1
    chex.assert_trees_all_equal(after.params, state.params)


def test_averages_follow_parameters_and_statistics():
    """TensorFlow's rule: d = min(ema, (1 + t) / (10 + t))."""
    state, step, _ = setup(ema=0.15)
    by_hand = state.variables
    for t in range(3):
        state, _ = step(state, BATCH)
        d = min(0.15, (1 + t) / (10 + t))
        by_hand = jax.tree.map(lambda a, v, d=d: d * a + (1 - d) * v, by_hand, state.variables)
        chex.assert_trees_all_close(state.ema, by_hand, rtol=1e-6, atol=1e-7)
    assert state.tested is state.ema
    assert set(setup()[0].tested) == {"params", "batch_stats"}


def test_accumulated_gradients_are_those_of_the_whole_batch_without_batch_norm():
    state, step, _ = setup(NetWithAux(), lr=1.0, preprocess=without_key)
    whole, metrics = step(state, BATCH)
    for parts in (2, 4):
        step = setup(NetWithAux(), lr=1.0, preprocess=without_key, accumulate=parts)[1]
        parted, found = jax.jit(step)(state, BATCH)
        chex.assert_trees_all_close(parted.params, whole.params, rtol=1e-5, atol=1e-6)
        for name in ("loss", "figure", "grad_norm"):
            np.testing.assert_allclose(found[name], metrics[name], rtol=1e-5)
        assert (int(parted.step), int(parted.seen)) == (1, 8)


def test_batch_norm_sees_one_part_at_a_time():
    """Part j has every second image from j on; running statistics move with each part."""
    state, step, _ = setup(Net(rate=0.0), preprocess=without_key, accumulate=2)
    after, _ = step(state, BATCH)
    stats = state.batch_stats
    for part in (IMAGES[0::2], IMAGES[1::2]):
        variables = {"params": state.params, "batch_stats": stats}
        _, moved = Net(rate=0.0).apply(variables, part / 255, train=True, mutable=["batch_stats"])
        stats = moved["batch_stats"]
    chex.assert_trees_all_close(after.batch_stats, stats, rtol=1e-5, atol=1e-6)


def test_precise_statistics_are_those_of_all_batches_together():
    """For the first batch norm, which no other stands before; also far from 0, where squares are lost."""
    state, _, _ = setup()
    made = program(preprocess=without_key)
    vars(made)["moments"] = Net(norm=partial(BatchNorm, momentum=0.0)).apply
    rng = np.random.default_rng(1)
    batches = [rng.integers(0, 256, (8, 6, 6, 1), np.uint8) * np.uint8(1 + i) for i in range(3)]
    found = precise_statistics(
        moments_step(made, state.variables, BATCH | {"image": images}, jax.random.key(i))
        for i, images in enumerate(batches)
    )["stem"]
    np.testing.assert_allclose(
        precise_statistics({"mean": np.float32([100.7 + d]), "var": np.float32([2e-8])} for d in (0, 0.001))["var"],
        [2e-8 + 0.0005**2], rtol=0.1,
    )  # fmt: skip
    kernel = np.asarray(state.params["stem"]["conv"]["kernel"])
    maps = jax.lax.conv_general_dilated(
        np.concatenate(batches) / np.float32(255), kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(found["norm"]["mean"], np.mean(maps, (0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["norm"]["var"], np.var(maps, (0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": jnp.zeros((8, 6, 6), jnp.uint8)}, r"images must be \(B, H, W, C\), not uint8 \(8, 6, 6\)"),
        ({"image": jnp.zeros((8, 3, 6, 6), jnp.uint8)}, r"channels last, \(B, H, W, C\), not uint8 \(8, 3, 6, 6\)"),
        ({"image": jnp.zeros((8, 6, 6, 3))}, r"must be uint8, 0 to 255, not float32"),
        ({"label": jnp.zeros(8)}, r"labels must be integers \(8,\), not float32 \(8,\)"),
        ({"label": jnp.zeros((8, 10), jnp.int32)}, r"labels must be integers \(8,\), not int32 \(8, 10\)"),
    ],
)
def test_wrong_arrays_are_told_before_the_first_step(change, told):
    state, step, _ = setup()
    with pytest.raises(UserError, match=told):
        jax.eval_shape(step, state, BATCH | change)
