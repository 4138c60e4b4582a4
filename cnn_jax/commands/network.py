"""Which network a command means: published weights by their tag, a file of weights, or a run of train.py."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax

from cnn_jax import storage
from cnn_jax.data.imagenet import NAMES
from cnn_jax.errors import UserError
from cnn_jax.models import create_model, list_models
from cnn_jax.models.card import ModelInfo
from cnn_jax.prediction import class_names
from cnn_jax.preprocessing import Preprocess, network_named, preprocess
from cnn_jax.recipes import Recipe
from cnn_jax.training.trained import ends, load_run
from cnn_jax.weights import WeightCard, import_state_dict, load_pretrained, read_state_dict, weight_card

SUFFIXES = (".pth", ".pt", ".th", ".bin", ".npz", ".safetensors")


@dataclass(frozen=True)
class Network:
    """What a command computes with.

    Attributes:
      name: of the network, without its weights.
      source: the weights or the run, as they were named.
      model, variables: for `model.apply`.
      num_classes: how many classes it tells apart, and `classes`, what they are called, None if that is not known.
      seen: what it sees of an image.
    """

    name: str
    source: str
    model: nn.Module
    variables: dict
    num_classes: int
    classes: tuple[str, ...] | None
    seen: Preprocess


def open_network(name: str, weights: str | None, **seen: Any) -> Network:
    """A network with weights: `name` is theirs, or `name` is the network's and `weights` theirs.

    Weights are named as weight_card takes them: a tag, hf://user/name, a folder, a file under its published name. As
    `weights` any other file will do; its images are seen as `name` says, a network or a tag. `seen` replaces a part of
    what preprocess makes of it.

    Raises:
      UserError: no such network or weights, or weights of another network.
    """
    network = network_named(name)
    if weights is None and network is not None:
        tags = list_models(f"{network.name}.*", pretrained=True)
        published = f"{', '.join(tags)}; " if tags else ""
        raise UserError(f"{name} is a network without weights; say which: {published}--weights FILE or --run DIR")
    if weights is None or not (Path(weights).suffix in SUFFIXES or Path(weights).is_file()):
        card = weight_card(weights or name)
        if network is not None and card.model != network.name:
            raise UserError(f"{weights} are weights of {card.model}, not of {name}")
        model, variables = load_pretrained(card)
        return Network(
            card.model, card.tag, model, variables, card.num_classes, class_names(card), preprocess(card, **seen)
        )
    of = weight_card(name) if network is None else _under_its_name(weights, network)
    name = of.name if isinstance(of, ModelInfo) else of.model
    variables = import_state_dict(name, read_state_dict(weights))
    channels, classes = ends(name, variables)
    names = class_names(of)
    return Network(
        name,
        weights,
        create_model(name, num_classes=classes),
        variables,
        classes,
        names if names and len(names) == classes else None,
        preprocess(of, channels=channels, **seen),
    )


def _under_its_name(weights: str, network: ModelInfo) -> WeightCard | ModelInfo:
    """The card of published weights of a network, in a file under its published name; the network's of another file."""
    with contextlib.suppress(UserError):
        if (card := weight_card(weights)).model == network.name:
            return card
    return network


def open_source(source: str, weights: str | None, **seen: Any) -> Network:
    """A run of train.py by its folder, of which the best checkpoint is taken, or what open_network takes.

    Raises:
      UserError: no such run or weights.
    """
    folder = storage.place(source)
    with storage.telling(f"cannot read {folder}"):
        is_run = weights is None and (folder / "config.json").exists() and (folder / "checkpoints").exists()
    return open_run(source, "best", **seen)[0] if is_run else open_network(source, weights, **seen)


def open_run(folder: str | Path, which: Literal["best", "latest"], **seen: Any) -> tuple[Network, Recipe]:
    """The network that a run of train.py has trained, `which` of its checkpoints, and its recipe.

    It sees what it was tested on: images of one size as they were, framed where the network takes larger ones; others
    by the card of the network. `seen` replaces a part of it, as for preprocess.

    Raises:
      UserError: no such run, or one of several seeds.
    """
    model, variables, task, classes, shape = load_run(folder, which)
    config = task.config
    if config.task != "classify":
        told = f"the run in {folder} learned to {config.task}, and this is for classes of images"
        raise UserError(f"{told}; cnn_jax.load_run opens it in Python")
    size = seen.pop("image_size", None) or config.image_size
    made = preprocess(config.model, channels=task.channels, image_size=size, **seen)
    if shape[0] and shape[1] and seen.get("resize") is None and seen.get("crop") is None:
        made = replace(made, resize=min(shape[0], shape[1], *made.size))
    named = tuple(NAMES.get(name, name) for name in classes)  # ImageNet's by their names
    return Network(config.model, str(folder), model, variables, task.classes, named, made), config


@contextlib.contextmanager
def enough_memory(batch_size: int) -> Generator[None]:
    """A UserError in the place of what JAX says when a device has too little memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"the device has not memory enough for --batch-size {batch_size}; take a smaller one") from None
