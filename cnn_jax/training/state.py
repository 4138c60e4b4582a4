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
      step: () int32, steps counted, those that changed nothing because of a bad number included.
      seen: () uint32, the place in the data: images drawn, the tails of epochs that filled no
        batch included (see data.order).
      skipped: () int32, steps in a row, up to the last one, that changed nothing.
      params, batch_stats: the model's collections, float32; `batch_stats` may be empty.
      opt_state: the optimiser's, a plateau's memory included. It counts no steps for a schedule.
      ema: moving averages of both collections, under their names; empty if none are wanted.
      key: the root key. Step t draws from fold_in(key, t), so no key is ever advanced.

    Several seeds trained side by side have a leading axis in every leaf.
    """

    step: jax.Array
    seen: jax.Array
    skipped: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    ema: dict
    key: jax.Array

    @classmethod
    def create(
        cls, variables: Mapping, optimizer: optax.GradientTransformation, key: jax.Array, *, ema: bool = False
    ) -> "TrainState":
        """The state before the first step, from what `model.init` returned; `ema`: with moving averages."""
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        averaged = {"params": params, "batch_stats": batch_stats}
        return cls(
            step=jnp.zeros((), jnp.int32),
            seen=jnp.zeros((), jnp.uint32),
            skipped=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            ema=jax.tree.map(jnp.copy, averaged) if ema else {},  # a buffer cannot be donated twice
            key=key,
        )

    @property
    def variables(self) -> dict:
        """What `model.apply` takes, as the last step left it."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def tested(self) -> dict:
        """What `model.apply` takes, as it is tested and used: the moving averages where there are some."""
        return self.ema or self.variables


def scalar(value: jax.Array) -> int:
    """A counter of the state on the host; that of the first of several seeds, as all count alike."""
    return int(np.ravel(jax.device_get(value))[0])


def count(params: dict) -> int:
    """The number of values in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def digest(variables: dict) -> str:
    """sha256 over a tree of arrays on the host: path, type, shape and bytes, sorted by path."""
    sha = hashlib.sha256()
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    for path in sorted(leaves):
        array = np.asarray(leaves[path])
        sha.update(f"{path} {array.dtype} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
