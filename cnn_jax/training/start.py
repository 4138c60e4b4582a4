"""What a run may start from: another run's variables, or published weights."""

from fnmatch import fnmatchcase
from pathlib import Path

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from cnn_jax import storage
from cnn_jax.errors import UserError
from cnn_jax.training.checkpoint import load_variables
from cnn_jax.training.state import TrainState
from cnn_jax.weights import load_pretrained, weight_card


def check_start(start: str) -> None:
    """Raises a UserError if `start` is neither a folder of a run, with checkpoints, nor names weights."""
    if _is_run(start):
        return
    if _is_place(start):
        raise UserError(f"--start {start} is no folder of a run: it has no checkpoints")
    weight_card(start)


def read_start(start: str, channels: int) -> dict:
    """The variables there, for images of so many channels: {"params": ..., "batch_stats": ...}.

    A run's latest; of published weights (weights.load_pretrained) what fits in any network with layers of their names.

    Raises:
      UserError: nothing there that can be read, or fetched.
    """
    if _is_run(start):
        return load_variables(start, "latest")
    return load_pretrained(start, in_chans=channels)[1]


def start_from(state: TrainState, others: dict, patterns: tuple[str, ...]) -> tuple[TrainState, list[str]]:
    """The state with the values of `others` in layers of the same name and shape; and the names of those layers.

    `others` are variables, `patterns` globs over layers such as "stage1/conv1"; running statistics go with their
    layers. Simonyan 2014 (1409.1556), sec. 3.1, starts its deeper networks so.

    Raises:
      UserError: no layer matches and fits.
    """
    own = flatten_dict(state.variables)
    theirs = flatten_dict({kind: others.get(kind, {}) for kind in state.variables})
    taken = {
        path: jax.make_array_from_process_local_data(value.sharding, theirs[path], value.shape)
        for path, value in own.items()
        if any(fnmatchcase("/".join(path[1:-1]), pattern) for pattern in patterns)
        and path in theirs
        and theirs[path].shape == value.shape
    }
    if not taken:
        raise UserError(f"no layer that {' '.join(patterns)} names has the same name and shape there")
    values = unflatten_dict(own | taken)
    values = {kind: values.get(kind, {}) for kind in state.variables}
    ema = state.ema and jax.tree.map(jnp.copy, values)
    return state.replace(**values, ema=ema), sorted({"/".join(path[1:-1]) for path in taken})


def _is_run(start: str) -> bool:
    with storage.telling(f"--start {start} cannot be read"):
        return (storage.place(start) / "checkpoints").is_dir()


def _is_place(start: str) -> bool:
    """Whether it can be no weights: on a bucket, or a folder without a configuration of them."""
    return start.startswith("gs://") or (Path(start).is_dir() and not (Path(start) / "config.json").exists())
