"""From a recipe to what a step computes."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import UserError
from cnn_jax.compilation import jit_once
from cnn_jax.data.order import Timeline
from cnn_jax.models import lenet
from cnn_jax.recipes import RECIPES, Optimizer, Recipe
from cnn_jax.recipes.recipe import ModelOptions
from cnn_jax.training.program import Program
from cnn_jax.training.step import eval_step, train_step

LENET = RECIPES["lenet5_modern"]
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), np.uint8)
BATCH = {"image": IMAGES, "label": np.arange(8, dtype=np.int32), "good": np.ones(8, bool)}


def program(config=LENET, **options):
    return Program(config, Timeline(size=80, batch_size=8, epochs=2), classes=10, channels=1, **options)


def test_every_word_of_a_recipe_reaches_the_network():
    config = Recipe(
        model="resnet18",
        stem="cifar",
        dropout=0.3,
        stochastic_depth=0.2,
        zero_init=True,
        bn_group_size=4,
        bn_momentum=0.99,
        remat=("stage1*",),
        dtype="bfloat16",
    )
    model = program(config).model
    assert (model.stem, model.dropout, model.stochastic_depth, model.zero_init) == ("cifar", 0.3, 0.2, True)
    assert (model.remat, model.dtype, model.num_classes) == (("stage1*",), jnp.bfloat16, 10)
    assert (model.norm().group_size, model.norm().momentum) == (4, 0.99)


def test_options_of_the_network_reach_it_and_are_checked_as_create_model_does():
    given = {"shortcut": "A", "se_reduction": 16, "batch_norm": {"frozen": ["stem*"], "unbiased": True}}
    made = program(Recipe(model="resnet18", bn_momentum=0.99, model_options=given))  # a plain dict will do
    model, norm = made.model, made.model.norm()
    assert (model.shortcut, model.se_reduction, model.num_classes) == ("A", 16, 10)
    assert (norm.frozen, norm.unbiased, norm.momentum) == (("stem*",), True, 0.99)
    assert isinstance(hash(made), int)  # a step's static argument
    assert made.flops != replace(made, config=replace(made.config, model_options=ModelOptions())).flops
    for options, message in (
        ({"shortcut": "Q"}, "unknown shortcut 'Q'"),
        ({"shortcutt": "A"}, "did you mean shortcut.*; with --model-options '{}' the recipe asks for none"),
        ({"norm": 3}, "norm must be"),
        ({"se_reduction": [1]}, "se_reduction must be"),
    ):
        with pytest.raises(UserError, match=message):
            _ = program(Recipe(model="resnet18", model_options=ModelOptions(options))).model


def test_an_option_that_the_network_lacks_is_told():
    with pytest.raises(UserError, match="unknown option of lenet5_modern 'stochastic_depth'(?!.*model-options)"):
        _ = program(replace(LENET, stochastic_depth=0.1)).model


def test_seeds_decide_the_state():
    made = program()
    same, other = (jit_once(made.init)(np.uint32(seed)).params for seed in (0, 1))
    again = made.init(0).params
    for a, b, c in zip(*map(jax.tree.leaves, (same, again, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        assert a.ndim == 1 or not np.array_equal(a, c)  # biases start at 0


def test_the_step_of_a_recipe_trains():
    made = program(replace(LENET, optimizer=Optimizer(lr=0.1, ema=0.9)))
    state, step = jit_once(made.init)(0), jax.jit(partial(train_step, made))
    losses = []
    for _ in range(12):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] and float(metrics["lr"]) > 0
    assert set(state.ema) == {"params", "batch_stats"}


def test_a_shift_moves_the_rate():
    made = program(LENET)
    shifted = replace(made, timeline=replace(made.timeline, shift=5))
    first, moved = (one.rate(jnp.int32(0)) for one in (made, shifted))
    assert float(first) == 0 and float(moved) == pytest.approx(0.05 * 5 / 10)  # half of a warm-up of ten steps


def test_bfloat16_computes_in_it_and_keeps_everything_else_in_float32():
    made = program(Recipe(model="resnet20_cifar", dtype="bfloat16", image_size=28))
    state = jax.eval_shape(made.init, 0)
    after, metrics = jax.eval_shape(partial(train_step, made), state, BATCH)
    for leaf in jax.tree.leaves((after.params, after.batch_stats, after.opt_state)):
        assert leaf.dtype == jnp.float32
    assert metrics["loss"].dtype == jnp.float32
    logits = jax.eval_shape(lambda v: made.model.apply(v, jnp.zeros((1, 28, 28, 1)), train=False), state.variables)
    assert logits.dtype == jnp.float32
    # A CPU computes them in float32.
    text = jax.jit(partial(train_step, made)).trace(state, BATCH).lower(lowering_platforms=("tpu",)).as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert convolutions and all("bf16" in line for line in convolutions)


def test_the_test_of_a_binary_loss_is_the_likelihood():
    made = program(replace(LENET, loss="bce"))
    state = jit_once(made.init)(0)
    records = eval_step(made, state.variables, BATCH)
    logits = made.model.apply(state.variables, made.task.preprocess(IMAGES, None), train=False)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, BATCH["label"])
    np.testing.assert_allclose(records["loss"], expected, rtol=1e-5)
    assert program(RECIPES["lenet5_1998"]).task.test_criterion is lenet.map_loss


def test_operations_are_counted_by_custom():
    """Three times 2 operations for each of ResNet-50's 4.09e9 multiply-adds."""
    made = Program(Recipe(model="resnet50"), Timeline(8, 8, 1), classes=1000, channels=3)
    assert made.flops == 6 * 4_089_184_256
