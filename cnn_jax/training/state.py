"""Everything that a training step changes, and a fingerprint of the result."""

import hashlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct


class TrainState(struct.PyTreeNode):
    """A pytree; with the recipe and the data it decides the rest of the run.

    Attributes:
      step: () int32, steps taken.
      seen: () uint32, the place in the data: images drawn, the tails of epochs that filled no
        batch included (see data.order).
      params, batch_stats: the model's collections, float32; `batch_stats` may be empty.
      opt_state: the optimiser's, its schedules and plateaus included.
      key: the root key. Step t draws from fold_in(key, t), so no key is ever advanced.
    """

    step: jax.Array
    seen: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    key: jax.Array

    @classmethod
    def create(cls, variables: Mapping, optimizer: optax.GradientTransformation, key: jax.Array) -> "TrainState":
        """The state before the first step, from what `model.init` returned."""
        params = variables["params"]
        return cls(
            step=jnp.zeros((), jnp.int32),
            seen=jnp.zeros((), jnp.uint32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
            key=key,
        )

    @property
    def variables(self) -> dict:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def count(params: dict) -> int:
    """The number of values in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def digest(state: TrainState) -> str:
    """sha256 over parameters and batch statistics: path, type, shape and bytes, sorted by path."""
    sha = hashlib.sha256()
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.variables)
    }
    for path in sorted(leaves):
        array = np.asarray(leaves[path])
        sha.update(f"{path} {array.dtype} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
