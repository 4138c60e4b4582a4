"""Transfer: what stands still stands still to the bit, the rest moves at its rate, and a probe finds the best head."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from quick_jit import quick_jit

from cnn_jax import UserError, create_model, transfer
from cnn_jax.data.order import Timeline
from cnn_jax.recipes import Optimizer, Recipe
from cnn_jax.training.program import Program
from cnn_jax.training.step import train_step

RNG = np.random.default_rng(0)
BATCH = {"image": RNG.integers(0, 256, (4, 16, 16, 1), np.uint8), "label": np.arange(4, dtype=np.int32)}
SGD = Optimizer(lr=0.1, momentum=0.9, weight_decay=1e-2, decay_on="all")


def program(**changes):
    config = Recipe(model="resnet20_cifar", image_size=16, batch_size=4, optimizer=SGD)
    return Program(replace(config, **changes), Timeline(size=40, batch_size=4, epochs=1), classes=10, channels=1)


def stepped(made, steps=2):
    """The state before and after."""
    step, before = quick_jit(partial(train_step, made)), quick_jit(made.init)(0)
    state = before
    for _ in range(steps):
        state, metrics = step(state, BATCH)
    assert int(metrics["skipped"]) == 0
    return before, state


def test_layers_come_in_the_order_of_the_network():
    names = transfer.layer_names(create_model("resnet20_cifar"), (32, 32, 3))
    stages = [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)]
    assert names == ("stem", *stages, "head")
    assert transfer.before(names, "stage2") == ("stem", "stage1_block1", "stage1_block2", "stage1_block3")
    assert transfer.before(names, "head") == names[:-1]
    assert transfer.before(names, "stem") == ()
    with pytest.raises(UserError, match="unknown layer 'stage2_blok1'; did you mean stage2_block1"):
        transfer.before(names, "stage2_blok1")
    with pytest.raises(UserError, match="unknown layer 'st'"):  # would freeze nothing, and not say so
        transfer.before(names, "st")


def test_auxiliary_heads_are_no_layers_of_the_network():
    names = transfer.layer_names(create_model("googlenet"), (224, 224, 3))
    assert not any(name.startswith("aux") for name in names) and names[-1] == "head"


def test_what_is_frozen_keeps_every_bit_and_its_statistics():
    """Weight decay would move it, momentum too."""
    before, after = stepped(program(freeze_until="stage3"))
    for kind in ("params", "batch_stats"):
        old, new = (flatten_dict(state.variables[kind]) for state in (before, after))
        for path, value in old.items():
            frozen = path[0] not in ("head", "stage3_block1", "stage3_block2", "stage3_block3")
            assert np.array_equal(value, new[path]) == frozen, path


def test_no_gradient_is_computed_for_what_is_frozen():
    """The program of a frozen network has the convolutions of the forward pass and of what is trained alone."""

    def convolutions(until):
        made = program(freeze_until=until)
        state = jax.eval_shape(made.init, 0)
        lowered = jax.jit(partial(train_step, made)).trace(state, BATCH).lower(lowering_platforms=("tpu",))
        return lowered.as_text().count("stablehlo.convolution")

    assert convolutions("head") < convolutions("stage3") < convolutions(None)


def test_norms_that_are_frozen_keep_statistics_while_everything_learns():
    before, after = stepped(program(freeze_norms=True))
    jax.tree.map(np.testing.assert_array_equal, before.batch_stats, after.batch_stats)
    moved = [
        not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (before.params, after.params)), strict=True)
    ]
    assert all(moved)


def test_norms_of_a_network_that_has_none_cannot_be_frozen():
    with pytest.raises(UserError, match="--freeze-norms: lenet5_modern has no batch norm"):
        _ = program(model="lenet5_modern", image_size=32, freeze_norms=True).model


def test_each_layer_moves_at_its_share_of_the_rate():
    """After one step of plain SGD the differences have the ratio of the rates."""
    plain, halved = (stepped(program(optimizer=replace(SGD, layer_decay=decay)), 1) for decay in (1.0, 0.5))
    names = transfer.layer_names(create_model("resnet20_cifar", num_classes=10), (16, 16, 1))
    for place, name in enumerate(names):
        moved = [
            jax.tree.leaves(jax.tree.map(jnp.subtract, b.params[name], a.params[name])) for a, b in (plain, halved)
        ]
        for whole, part in zip(*moved, strict=True):
            share = 0.5 ** (len(names) - 1 - place)
            np.testing.assert_allclose(part, share * whole, atol=1e-2 * share * np.abs(whole).max() + 1e-7)


def test_a_probe_is_the_best_head_there_is():
    """Its gradient is 0, and it tells apart what a plane divides."""
    labels = np.repeat(np.arange(3), 40)
    features = RNG.standard_normal((120, 5)).astype(np.float32) * [1, 10, 100, 1, 1] + 3
    features[:, 0] += 4 * labels
    features[:, 1] -= 60 * (labels == 2)
    head = transfer.linear_probe(features, labels, 3)
    assert head["kernel"].shape == (5, 3) and head["bias"].shape == (3,)
    assert np.mean((features @ head["kernel"] + head["bias"]).argmax(1) == labels) > 0.95

    mean, deviation = features.mean(0), features.std(0)
    kernel = head["kernel"] * deviation[:, None]
    logits = (features - mean) / deviation @ kernel + head["bias"] + mean @ head["kernel"]
    error = np.asarray(jax.nn.softmax(logits)) - np.eye(3)[labels]
    gradient = ((features - mean) / deviation).T @ error / 120 + 1e-3 * kernel
    np.testing.assert_allclose(gradient, 0, atol=1e-4)  # of up to 0.5 at the start


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((3, 4)), np.zeros(2, int), r"features \(N, D\) and labels \(N,\), not \(3, 4\) and \(2,\)"),
        (np.zeros((3, 4, 4)), np.zeros(3, int), r"not \(3, 4, 4\)"),
        (np.zeros((2, 4)), np.array([0, 7]), "labels must be at least 0 and below 3, not 0 to 7"),
    ],
)
def test_a_probe_of_what_does_not_fit_is_told(features, labels, message):
    with pytest.raises(UserError, match=message):
        transfer.linear_probe(features, labels, 3)


def test_features_are_those_before_the_head_in_any_batches():
    model = create_model("lenet5_modern", num_classes=0)
    images = RNG.standard_normal((5, 32, 32, 1)).astype(np.float32)
    variables = quick_jit(partial(model.init, train=False))(jax.random.key(0), images)
    found = transfer.pooled_features(model, variables, iter([images[:4], images[4:]]))
    assert found.shape == (5, 84) and found.dtype == np.float32
    np.testing.assert_allclose(found, model.apply(variables, images, train=False), rtol=1e-5, atol=1e-6)
