"""What a run of train.py has trained, opened again for other code."""

from pathlib import Path
from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from cnn_jax import storage
from cnn_jax.data import open_dataset
from cnn_jax.errors import UserError
from cnn_jax.models import model_info
from cnn_jax.recipes import Recipe
from cnn_jax.recipes.configuration import override, read_json
from cnn_jax.tasks import Task, make_task
from cnn_jax.training.checkpoint import load_variables
from cnn_jax.training.program import network_options
from cnn_jax.training.run_folder import DATASET


class Trained(NamedTuple):
    """A network as a run left it: `model.apply(variables, task.preprocess(images, None), train=False)`.

    Attributes:
      model, variables: for `model.apply`.
      task: what it learned (cnn_jax.tasks), with its recipe as `task.config`; `task.preprocess`
        takes (B, H, W, C) uint8.
      classes: what its classes, or the words of its captions, are called.
      shape: of the data set's images, (H, W, C), None where they differ.
    """

    model: nn.Module
    variables: dict
    task: Task
    classes: tuple[str, ...]
    shape: tuple[int | None, ...]


def load_run(folder: str | Path, which: Literal["best", "latest"] = "best") -> Trained:
    """The network of the run in `folder`, also on gs://, by `which` of its checkpoints.

    Raises:
      UserError: no such run, no whole checkpoint in it, or one of several seeds.
    """
    config = read_run(folder)
    if config.seeds > 1:
        raise UserError(f"the run in {folder} trained {config.seeds} seeds side by side; its summary.json has each")
    classes, shape = _images_of(folder, config)
    variables = load_variables(folder, which)
    channels, count = ends(config.model, variables)
    task = make_task(config, count if config.task == "classify" else len(classes), channels)
    model = task.model(dtype=jnp.dtype(config.dtype), **network_options(config))
    return Trained(model, variables, task, classes, shape)


def ends(name: str, variables: dict) -> tuple[int, int]:
    """How many channels images have for these variables of a network, and how many classes there are."""
    shapes = {path: values.shape for path, values in flatten_dict(variables["params"]).items()}
    first = (*model_info(name).structure.layers[0].path.split("/"), "kernel")
    classes = next((shape[-1] for path, shape in shapes.items() if "head" in path), model_info(name).num_classes)
    return shapes[first][2], classes


def read_run(folder: str | Path) -> Recipe:
    """The configuration of a run, from its config.json.

    Raises:
      UserError: there is none, or it is not one.
    """
    path = storage.place(folder) / "config.json"
    values = read_json(path)
    for key in ("recipe", "data"):  # where the values came from, and what the images were
        values.pop(key, None)
    try:
        return override(Recipe(model=""), values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _images_of(folder: str | Path, config: Recipe) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
    """What the classes of a run's data set are called, and the shape of its images."""
    path = storage.place(folder) / DATASET
    with storage.telling(f"cannot read {path}"):
        described = path.exists()
    if described:
        values = read_json(path)
        return tuple(values["classes"]), tuple(values["shape"])
    dataset = open_dataset(config.dataset, config.test_split, config.data_dir)  # of a run before runs described it
    return dataset.classes, dataset.shape
