"""Steps compiled for their data: several seeds side by side, and precise statistics."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from quick_jit import quick_jit

from cnn_jax import sharding
from cnn_jax.data.engines import OnDevice
from cnn_jax.data.loaders import Loader
from cnn_jax.data.order import Timeline
from cnn_jax.data.sources import open_dataset
from cnn_jax.evaluation import evaluate, summarize
from cnn_jax.recipes import RECIPES, Recipe
from cnn_jax.training.compiled import (
    abstract_state,
    compile_settle,
    compile_test,
    compile_tests,
    compile_train,
    create_state,
    side_by_side,
)
from cnn_jax.training.program import Program
from cnn_jax.training.step import METRICS

LENET = replace(RECIPES["lenet5_modern"], batch_size=20, epochs=2)


def run(config, images=60):
    """A program for the first digits of each class, its loaders and its first state."""
    mesh = sharding.data_mesh(config.batch_size)
    kinds = {"train": np.arange(0, 4000, 4000 // images), "test": np.arange(0, 1000, 1000 // images)}
    sets = {kind: open_dataset("mnist_5k", kind).select(rows[:images], kind) for kind, rows in kinds.items()}
    seeds = {"train": tuple(range(config.seed, config.seed + config.seeds)), "test": (config.seed,)}
    splits = {kind: sharding.per_seed(mesh) if len(seeds[kind]) > 1 else sharding.split(mesh) for kind in sets}
    engines = {kind: OnDevice(sets[kind], everywhere=sharding.replicated(mesh), split=splits[kind]) for kind in sets}
    loaders = {kind: Loader(sets[kind], engines[kind], config.batch_size, mesh, seeds[kind]) for kind in sets}
    program = Program(config, Timeline(images, config.batch_size, config.epochs), classes=10, channels=1)
    return program, loaders, create_state(program, abstract_state(program, mesh))


def trained(config):
    """The state after an epoch, and the records of its test."""
    program, loaders, state = run(config)
    step = compile_train(program, state, loaders["train"])
    for batch in loaders["train"].epoch(0):
        state, metrics = step(state, batch.arrays)
    test = compile_test(program, state, loaders["test"])
    return state, metrics, evaluate(partial(test, state.tested), loaders["test"].every_image())


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_first_state_traces_its_network_once(monkeypatch, seeds):
    traced, init = [], Program.init
    monkeypatch.setattr(Program, "init", lambda self, seed: traced.append(seed) or init(self, seed))
    program, _, state = run(replace(LENET, seeds=seeds))
    assert len(traced) == 1
    axis = (2,) if seeds == 2 else ()
    assert [(leaf.shape, leaf.dtype) for leaf in (state.step, state.seen)] == [(axis, "int32"), (axis, "uint32")]
    wanted = jax.jit(program.beginning[0])(program.beginning[1])
    for a, b in zip(jax.tree.leaves(state.replace(key=0)), jax.tree.leaves(wanted.replace(key=0)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_loaders_of_the_same_batches_share_a_program():
    program, loaders, state = run(LENET)
    same = {"validation": replace(loaders["train"], seeds=(5,)), "test": loaders["test"]}  # as many images
    smaller = run(LENET, images=40)[1]["test"]
    tests = compile_tests(program, state, same | {"smaller": smaller})
    assert tests["validation"] is tests["test"] is not tests["smaller"]
    for name, loader in same.items():
        records = evaluate(partial(tests[name], state.tested), loader.every_image())
        labels = loader.dataset.labels
        np.testing.assert_array_equal(records["label"], labels)


def test_seeds_side_by_side_are_the_runs_of_each_seed():
    state, metrics, records = trained(replace(LENET, seed=3, seeds=2))
    assert records["top1"].shape == (60, 2) and records["label"].shape == (60,)
    assert metrics.shape == (2, len(METRICS))
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
    program, loaders, state = run(config)
    train = loaders["train"]
    settle = compile_settle(program, state, train)
    settled = settle(state, 0)
    norm = settled.batch_stats["stem"]["norm"]
    rows = np.concatenate([batch.rows for batch in train.epoch(0, most=2)])
    images = program.task.preprocess(train.dataset.images[rows], None)
    _, moved = quick_jit(partial(program.apply, train=True, mutable=["batch_stats"]))(state.variables, images)
    own = moved["batch_stats"]["stem"]["norm"]  # 0.9 * (0, 1) + 0.1 * the statistics of both batches together
    np.testing.assert_allclose(norm["mean"], np.asarray(own["mean"]) / 0.1, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(norm["var"], (np.asarray(own["var"]) - 0.9) / 0.1, rtol=2e-3, atol=1e-5)
    again = settle(settled, 0)  # nothing new
    for a, b in zip(jax.tree.leaves(again.batch_stats), jax.tree.leaves(settled.batch_stats), strict=True):
        np.testing.assert_array_equal(a, b)
    grouped = replace(program, config=replace(config, bn_group_size=5))  # groups' means differ: the population's do not
    own = compile_settle(grouped, state, train)(state, 0).batch_stats["stem"]["norm"]
    np.testing.assert_allclose(own["var"], norm["var"], rtol=1e-3)
    averaged = state.replace(ema={"params": state.params, "batch_stats": state.batch_stats})
    found = settle(averaged, 0)
    np.testing.assert_allclose(found.ema["batch_stats"]["stem"]["norm"]["mean"], norm["mean"], rtol=1e-5, atol=1e-6)
    assert found.batch_stats is averaged.batch_stats


def test_without_them_a_state_stays_as_it_is():
    program, loaders, state = run(LENET)
    assert compile_settle(program, state, loaders["train"])(state, 0) is state
