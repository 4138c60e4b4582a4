"""Networks with weights, by the name of the weights."""

import math
import warnings
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cnn_jax.errors import UserError
from cnn_jax.models import create_model, model_info
from cnn_jax.weights import hub
from cnn_jax.weights.cards import INSTEAD, WEIGHT_CARDS, WEIGHTS, WeightCard, weight_card
from cnn_jax.weights.files import read_state_dict
from cnn_jax.weights.layout import first_kernel, imported


def load_pretrained(
    name: str | WeightCard,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    key: jax.Array | None = None,
    **options,
) -> tuple[nn.Module, dict]:
    """A network and its variables, from published weights or one's own.

    `name` is a tag of list_models(pretrained=True) such as "resnet50.tv_in1k", hf://user/name for a repository in
    timm's format, a folder in that format, a file under its published name, or a card. What is not here is fetched
    once. With another `num_classes` than the weights' the head is drawn anew from `key` (jax.random.key(0) if none),
    and a warning says so; 0 leaves it out. `in_chans` adapts the first kernel as timm does: its channels are summed
    for one, repeated and scaled for other numbers than the weights'. Further `options` are create_model's: `dtype`.

    Returns the module and {"params": ..., "batch_stats": ...}, float32, for
    `module.apply(variables, images, train=False)`.

    Raises:
      UserError: no such weights; a file that cannot be fetched, with what to do, or that is not what was published;
        weights of another network; an option that create_model refuses.
    """
    card = name if isinstance(name, WeightCard) else weight_card(name)
    classes = card.num_classes if num_classes is None else num_classes
    model = create_model(card.model, num_classes=classes, **options)  # a mistake is told before the download
    if in_chans is not None and in_chans < 1:
        raise UserError(f"in_chans must be at least 1, not {in_chans}")
    variables, told = imported(card.model, _state_dict(card), key=key, num_classes=classes, **options)
    if told:
        warnings.warn(told, stacklevel=2)
    return model, variables if in_chans is None else _with_channels(card.model, variables, in_chans)


def _state_dict(card: WeightCard) -> Mapping[str, np.ndarray]:
    """The arrays of the card's file, which is fetched if it is not here; a bad one does not stay in the cache."""
    place = card.path or hub.folder() / card.names[0]
    if card.path or place.is_file():
        return read_state_dict(place)
    shapes = (leaf.shape for leaf in jax.tree.leaves(model_info(card.model).structure.variables))
    size = 4 * sum(map(math.prod, shapes)) / 1e6
    instead = f"put it, about {size:,.0f} MB, into {place.parent} as {place.name}"
    if card.hub:
        path = hub.from_hub(card.hub, WEIGHTS, instead if card.tag in WEIGHT_CARDS else INSTEAD)
    else:
        path = hub.from_address(str(card.url), card.sha256 or "", instead)
    try:
        return read_state_dict(path)
    except UserError:
        hub.forget(path)
        raise


def _with_channels(name: str, variables: dict, channels: int) -> dict:
    """Variables for images of that many channels (timm 1.0.31, adapt_input_conv)."""
    values, place = flatten_dict(variables), first_kernel(name)
    kernel = values[place]
    had = kernel.shape[-2]
    if channels == 1:
        kernel = kernel.sum(-2, keepdims=True)
    elif channels != had:
        kernel = jnp.tile(kernel, (1, 1, math.ceil(channels / had), 1))[..., :channels, :] * (had / channels)
    return unflatten_dict(values | {place: kernel})
