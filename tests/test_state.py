import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax.training.state import TrainState, count, digest

VARIABLES = {
    "params": {"b": {"kernel": jnp.ones((2, 3))}, "a": {"bias": jnp.zeros(3)}},
    "batch_stats": {"n": {"mean": jnp.ones(4)}},
}


def create(variables=VARIABLES):
    return TrainState.create(variables, optax.sgd(0.1, 0.9), jax.random.key(0))


def test_a_fresh_state_stands_at_step_0():
    state = create()
    assert int(state.step) == int(state.seen) == 0 and state.step.dtype == jnp.int32
    assert state.variables == VARIABLES
    assert create({"params": VARIABLES["params"]}).batch_stats == {}


def test_count_counts_values():
    assert count(VARIABLES["params"]) == 9


def test_digest_is_sha256_over_paths_and_bytes_in_order():
    sha = hashlib.sha256()
    sha.update(b"batch_stats/n/mean float32 (4,)\n" + np.ones(4, np.float32).tobytes())
    sha.update(b"params/a/bias float32 (3,)\n" + np.zeros(3, np.float32).tobytes())
    sha.update(b"params/b/kernel float32 (2, 3)\n" + np.ones((2, 3), np.float32).tobytes())
    assert digest(create().variables) == sha.hexdigest()


def test_digest_sees_one_bit_of_parameters_or_statistics():
    state = create()
    bit = jnp.nextafter(jnp.float32(1), jnp.float32(2))
    changed = state.replace(params={**state.params, "b": {"kernel": state.params["b"]["kernel"].at[1, 2].set(bit)}})
    moved = state.replace(batch_stats={"n": {"mean": state.batch_stats["n"]["mean"].at[0].set(bit)}})
    assert len({digest(each.variables) for each in (state, changed, moved)}) == 3
