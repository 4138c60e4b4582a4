"""What a network takes photographs for: its most probable classes, by batches, in constant memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from cnn_jax.data.augment import normalize
from cnn_jax.data.decode import BadImage
from cnn_jax.data.host import cores, read_ahead
from cnn_jax.data.imagenet import CLASSES
from cnn_jax.errors import BadData, UserError
from cnn_jax.evaluation.evaluate import AHEAD, arrived
from cnn_jax.models.card import ModelInfo
from cnn_jax.preprocessing import Image, Preprocess, named, network_named, preprocess, several
from cnn_jax.sharding import replicated, split
from cnn_jax.weights import WeightCard, weight_card


class Prediction(NamedTuple):
    """The most probable classes of an image, the first one first.

    Attributes:
      image: as it was given.
      classes: their numbers; of equal ones the lower first.
      names: what they are called; their numbers again, as text, where nothing else is known.
      probabilities: in [0, 1]; those of all classes sum to 1.
    """

    image: Any
    classes: tuple[int, ...]
    names: tuple[str, ...]
    probabilities: tuple[float, ...]


def _refuse(image: Any, told: str) -> None:
    raise BadData(told)


def predict(
    model: nn.Module,
    variables: Any,
    images: Image | Sequence[Image],
    of: str | WeightCard | ModelInfo | Preprocess,
    *,
    classes: Sequence[str] | None = None,
    top: int = 5,
    batch_size: int = 32,
    on_bad: Callable[[Any, str], None] = _refuse,
) -> Iterator[Prediction]:
    """The `top` most probable classes of each image, in the order of `images`, which are those of Preprocess.

    `of` says what the network sees of an image: the name or card of its weights or of the network, see preprocess, or
    what that made of these. Weights for ImageNet bring its class names; `classes` names others.

    Threads decode while the devices compute, `batch_size` images a step, split over all devices of this process. What
    is made ahead is some steps' worth, however many images there are, so paths need little memory. The network is
    compiled once for all calls with the same module, batch and image size.

    `on_bad(image, told)` is called for an image that cannot be read, which is then left out; without it such an image
    ends all.

    Raises:
      UserError: as preprocess and Preprocess; `classes` that are not as many as the network has. BadData: a bad image.
    """
    for what, value in (("top", top), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{what} must be a positive whole number, not {value}")
    seen = of if isinstance(of, Preprocess) else preprocess(of)
    given, count = classes is not None, getattr(model, "num_classes", None)
    if count == 0:
        raise UserError("the network has no classes to tell apart: num_classes=0 gives features")
    names = classes if given else class_names(of)
    if names is not None and count not in (None, len(names)):
        if given:
            raise UserError(f"classes names {len(names)} classes, the network has {count}")
        names = None  # a head of one's own
    return _predictions(model, variables, several(images), seen, names, top, batch_size, on_bad)


def class_names(of: Any) -> tuple[str, ...] | None:
    """What the classes of weights are called, by their name or card; None if that is not known."""
    card = network_named(of) or weight_card(of) if isinstance(of, str) else of
    if not isinstance(card, WeightCard):
        return None
    return card.classes or (CLASSES if card.num_classes == len(CLASSES) else None)


def _predictions(
    model: nn.Module,
    variables: Any,
    images: Sequence[Any],
    seen: Preprocess,
    names: Sequence[str] | None,
    top: int,
    batch_size: int,
    on_bad: Callable[[Any, str], None],
) -> Iterator[Prediction]:
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    size = -(-min(batch_size, len(images)) // mesh.size) * mesh.size
    variables = jax.device_put(variables, replicated(mesh))
    best = partial(_best, model=model, mean=seen.mean, std=seen.std, top=top)
    threads = min(cores(), 32)
    made = read_ahead(_Pixels(images, seen), threads, ahead=AHEAD * threads + 1)

    def good() -> Iterator[tuple[int, np.ndarray]]:
        for number, pixels in enumerate(made):
            if isinstance(pixels, BadImage):
                on_bad(images[number], f"{named(images[number], number)} {pixels}")
            else:
                yield number, pixels

    def steps() -> Iterator[Any]:
        left = good()
        while some := list(islice(left, size)):
            numbers, pixels = zip(*some, strict=True)
            full = np.stack([*pixels, *pixels[:1] * (size - len(some))])
            yield numbers, best(variables, jax.device_put(full, split(mesh)))

    try:
        for numbers, (probabilities, classes) in arrived(steps()):
            for number, p, c in zip(numbers, probabilities.tolist(), classes.tolist(), strict=False):  # without padding
                told = tuple(str(one) if names is None else names[one] for one in c)
                yield Prediction(images[number], tuple(c), told, tuple(p))
    finally:
        made.close()


@dataclass(frozen=True)
class _Pixels:
    """Element i is what the network sees of image i, or why it cannot be read."""

    images: Sequence[Image]
    seen: Preprocess

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray | BadImage:
        try:
            return self.seen.pixels(self.images[index])
        except BadImage as bad:
            return bad


@partial(jax.jit, static_argnames=("model", "mean", "std", "top"))
def _best(variables: Any, pixels: jax.Array, *, model: nn.Module, mean, std, top: int) -> tuple[jax.Array, jax.Array]:
    """Probabilities and numbers of the classes, (B, top) each, of (B, H, W, C) uint8."""
    logits: Any = model.apply(variables, normalize(pixels, mean, std), train=False)
    return tuple(jax.lax.top_k(jax.nn.softmax(logits), min(top, logits.shape[-1])))
