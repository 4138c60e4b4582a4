"""Training states of a few numbers, which differ from step to step."""

import chex
import jax
import jax.numpy as jnp
import optax

from cnn_jax.training.state import TrainState


def state_at(step: int, width: int = 3, momentum: float | None = 0.9) -> TrainState:
    variables = {
        "params": {"head": {"kernel": jnp.full((2, width), step, jnp.float32)}},
        "batch_stats": {"norm": {"mean": jnp.arange(4.0) + step}},
    }
    state = TrainState.create(variables, optax.sgd(0.1, momentum), jax.random.key(step))
    return state.replace(step=jnp.int32(step))


def with_key_data(state: TrainState) -> TrainState:
    return state.replace(key=jax.random.key_data(state.key))


def assert_equal(found: TrainState, expected: TrainState) -> None:
    """Bit for bit, the key included."""
    chex.assert_trees_all_equal(with_key_data(found), with_key_data(expected))
