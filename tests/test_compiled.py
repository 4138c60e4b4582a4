"""Programs compiled for their data: several seeds side by side, and precise statistics."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from cnn_jax.data.engines import OnDevice
from cnn_jax.data.order import Timeline
from cnn_jax.data.sources import open_dataset
from cnn_jax.evaluation import summarize
from cnn_jax.recipes import RECIPES, Recipe
from cnn_jax.training import sharding
from cnn_jax.training.compiled import Compiled, create_state, per_seed, side_by_side
from cnn_jax.training.program import Program

LENET = replace(RECIPES["lenet5_modern"], batch_size=20, epochs=2)


def run(config, images=60):
    """A program compiled for the first digits of each class, and its first state."""
    mesh = sharding.data_mesh(config.batch_size)
    everywhere, split = sharding.replicated(mesh), sharding.split(mesh)
    kinds = {"train": np.arange(0, 4000, 4000 // images), "test": np.arange(0, 1000, 1000 // images)}
    sets = {kind: open_dataset("mnist_5k", kind).select(rows[:images], kind) for kind, rows in kinds.items()}
    splits = {"train": per_seed(mesh) if config.seeds > 1 else split, "test": split}
    engines = {kind: OnDevice(sets[kind], everywhere=everywhere, split=splits[kind]) for kind in sets}
    program = Program(config, Timeline(images, config.batch_size, config.epochs), classes=10, channels=1)
    state = create_state(program, sharding.state_shardings(mesh, create_state(program)))
    return Compiled(program, mesh, state, engines, dict.fromkeys(sets, images), tested="test"), state


def trained(config):
    """The state after an epoch, and the records of its test."""
    compiled, state = run(config)
    for batch in compiled.engines["train"].batches(compiled.rows(0), 0):
        state, metrics = compiled.step(state, batch)
    return state, metrics, compiled.predict(state, "test", iter)


def test_seeds_side_by_side_are_the_runs_of_each_seed():
    state, metrics, records = trained(replace(LENET, seed=3, seeds=2))
    assert records["top1"].shape == (60, 2) and records["label"].shape == (60,)
    assert metrics["loss"].shape == (2,)
    for place, seed in enumerate((3, 4)):
        alone, _, found = trained(replace(LENET, seed=seed))
        for a, b in zip(jax.tree.leaves(alone.params), jax.tree.leaves(state.params), strict=True):
            np.testing.assert_allclose(a, b[place], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["loss"], records["loss"][:, place], rtol=1e-3, atol=1e-5)


def test_a_summary_of_seeds_has_mean_and_spread():
    top1 = np.array([[1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0]], bool)
    found = summarize({"loss": np.ones((4, 3)), "top1": top1, "top5": top1})
    assert found["test_top1_seeds"] == [1.0, 0.5, 0.5]
    assert found["test_top1"] == pytest.approx(2 / 3) and found["test_count"] == 4
    assert found["test_top1_std"] == pytest.approx(np.std([1.0, 0.5, 0.5], ddof=1))


def test_side_by_side_is_vmap():
    def function(a, b):
        return {"sum": (a * b).sum(), "a": a}

    a, b = np.arange(12.0).reshape(3, 4), np.arange(3.0)
    found, wanted = jax.jit(side_by_side(function))(a, b), jax.vmap(function)(a, b)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values)


def test_precise_statistics_stand_in_what_is_tested():
    config = Recipe(model="resnet20_cifar", image_size=28, batch_size=20, epochs=1, precise_bn=2)
    compiled, state = run(config)
    settled = compiled.settle(state, 0)
    norm = settled.batch_stats["stem"]["norm"]
    batches = np.concatenate(list(compiled.rows(0)[:2]))
    images = compiled.program.preprocess(np.asarray(compiled.engines["train"].data["image"])[batches], None)
    _, moved = compiled.program.model.apply(state.variables, images, train=True, mutable=["batch_stats"])
    own = moved["batch_stats"]["stem"]["norm"]  # 0.9 * (0, 1) + 0.1 * the statistics of both batches together
    np.testing.assert_allclose(norm["mean"], np.asarray(own["mean"]) / 0.1, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(norm["var"], (np.asarray(own["var"]) - 0.9) / 0.1, rtol=2e-3, atol=1e-5)
    for a, b in zip(
        jax.tree.leaves(compiled.settle(settled, 0).batch_stats), jax.tree.leaves(settled.batch_stats), strict=True
    ):
        np.testing.assert_array_equal(a, b)  # again: nothing new
    grouped, _ = run(replace(config, bn_group_size=5))  # whose groups' means differ: the population's do not
    own = grouped.settle(state, 0).batch_stats["stem"]["norm"]
    np.testing.assert_allclose(own["var"], norm["var"], rtol=1e-3)
    averaged = state.replace(ema={"params": state.params, "batch_stats": state.batch_stats})
    with_ema, _ = run(replace(config, optimizer=replace(config.optimizer, ema=0.9)))
    found = with_ema.settle(averaged, 0)
    np.testing.assert_allclose(found.ema["batch_stats"]["stem"]["norm"]["mean"], norm["mean"], rtol=1e-5, atol=1e-6)
    assert found.batch_stats is averaged.batch_stats
