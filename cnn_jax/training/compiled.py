"""The steps of a run, compiled ahead of time for its mesh, its batches and its state."""

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnn_jax.compilation import jit_once
from cnn_jax.data.engines import Batch, gather
from cnn_jax.data.loaders import Loader
from cnn_jax.sharding import replicated, state_shardings
from cnn_jax.training.program import Program
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import eval_step, moments_step, precise_statistics, told, train_step

MOMENTS = 0x626E0000  # set apart from the keys of steps


def abstract_state(program: Program, mesh: Mesh | None = None, fully_sharded: bool = False) -> TrainState:
    """Shapes and types of the state before the first step; on a mesh, also places, as sharding.state_shardings says.

    Several seeds: a leading axis in every leaf.

    Raises:
      UserError: an option that the network does not have, or a size of images that it does not take.
    """
    state = jax.eval_shape(*program.beginning)
    if mesh is None:
        return state
    places = state_shardings(mesh, state, fully_sharded)
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state, places)


def create_state(program: Program, described: TrainState) -> TrainState:
    """The state before the first step, made on the devices where abstract_state, of a mesh, places it.

    The devices draw weights while this process goes on; `step` and `seen`, which it reads first, do not wait for them.
    """
    init, seed = program.beginning
    state = jit_once(init, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, described))(seed)
    counters = {"step": described.step, "seen": described.seen}
    zeros = {name: jax.device_put(np.zeros(one.shape, one.dtype), one.sharding) for name, one in counters.items()}
    return state.replace(**zeros)


def compile_train(
    program: Program, state: TrainState, loader: Loader
) -> Callable[[TrainState, Batch], tuple[TrainState, jax.Array]]:
    """step.train_step of a program: (state, a batch's arrays) -> (state, step.told); the state is donated."""
    one = partial(train_step, program)
    many = one if program.config.seeds == 1 else side_by_side(one)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
        state, metrics = many(state, batch)
        return state, told(metrics)

    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    out = (places, replicated(loader.mesh))
    return _ahead(step, state, loader, out, donate_argnums=0)


def compile_test(program: Program, state: TrainState, loader: Loader) -> Callable[[dict, Batch], dict[str, jax.Array]]:
    """step.eval_step of a program: (variables, a batch's arrays) -> records; of several seeds (B, seeds)."""
    step = partial(eval_step, program)
    out = replicated(loader.mesh)
    return _ahead(step if program.config.seeds == 1 else partial(_of_seeds, step), state.tested, loader, out)


def compile_tests(program: Program, state: TrainState, loaders: dict[str, Loader]) -> dict[str, Callable]:
    """compile_test for each loader; one program for those whose batches have the same shapes, types and places."""
    made: dict[Any, Callable] = {}

    def test(loader: Loader) -> Callable:
        leaves, tree = jax.tree.flatten(loader.example())
        kind = (tree, loader.sharding, *((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves))
        if kind not in made:
            made[kind] = compile_test(program, state, loader)
        return made[kind]

    return {name: test(loader) for name, loader in loaders.items()}


def compile_settle(program: Program, state: TrainState, loader: Loader) -> Callable[[TrainState, int], TrainState]:
    """(state, epoch) -> the state with precise batch statistics, over the epoch's first batches.

    As many as the recipe's `precise_bn` says; with 0 the state as it is.
    """
    if not program.config.precise_bn:
        return lambda state, epoch: state
    everywhere = replicated(loader.mesh)
    moments = _ahead(
        lambda given, batch: moments_step(program, given[0], batch, given[1]),
        (state.tested, state.key),
        loader,
        everywhere,
    )

    def settle(state: TrainState, epoch: int) -> TrainState:
        key = jax.random.fold_in(state.key, MOMENTS)
        found = precise_statistics(
            moments((state.tested, jax.device_put(jax.random.fold_in(key, number), everywhere)), batch.arrays)
            for number, batch in enumerate(loader.epoch(epoch, most=program.config.precise_bn))
        )
        found = jax.device_put(found, everywhere)
        return state.replace(ema=state.ema | {"batch_stats": found}) if state.ema else state.replace(batch_stats=found)

    return settle


def _ahead(function: Callable, of: Any, loader: Loader, out: Any, **options) -> Callable:
    """`function(of, images)` as a program of (of, a batch's arrays)."""

    def gathered(of: Any, batch: Batch) -> Any:
        return function(of, jax.lax.with_sharding_constraint(gather(batch), loader.sharding))

    return jax.jit(gathered, out_shardings=out, **options).lower(of, loader.example()).compile()


def side_by_side(function: Callable) -> Callable:
    """`function` of several seeds at once, along the first axis of each argument.

    jax.vmap, but on a CPU one seed after another in the same program: vmap makes convolutions of one
    kernel a seed grouped ones, with which LeNet-5 trained at a quarter of the speed there.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(function)

    def each(*arguments):
        seeds = len(jax.tree.leaves(arguments)[0])
        found = [function(*jax.tree.map(itemgetter(seed), arguments)) for seed in range(seeds)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    return each


def _of_seeds(test: Callable, variables: dict, batch: Batch) -> dict[str, jax.Array]:
    """The records of one batch by several seeds' variables, (B, seeds); what is the same for all stays (B,)."""
    records = side_by_side(partial(test, batch=batch))(variables)
    same = {name: records[name][0] for name in ("label", "good")}
    return {name: values.T for name, values in records.items()} | same
