"""Cards of weights: where they lie, whose layout they have, how images enter the network."""

import re
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.models import ALIASES, MODELS, list_models
from cnn_jax.models.card import IMAGENET_MEAN, IMAGENET_STD, pretrained

HUB = "hf://"


@dataclass(frozen=True)
class WeightCard:
    """Weights that someone published.

    `tag` is our name of the network, a dot and the publisher's name of the weights: timm's; tv_in1k and tv2_in1k are
    torchvision's first and second. `reference` says in whose layout the file is. An image in [0, 1], RGB also where the
    file is made for BGR, enters the network as (image - mean) / std per channel, after a resize of its shorter side to
    `resize` pixels by `interpolation` and a centre crop of `input_size` (H, W, C). `test_size` and `test_resize` are what
    the publisher advises for tests, where that differs. The file is in the repository `hub` of the Hugging Face Hub,
    or else at `url`, which otherwise is where it was first. `top1` and `top5` are the first published figures in percent.
    """

    tag: str
    model: str
    reference: str
    _: KW_ONLY
    input_size: tuple[int, int, int]
    resize: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    num_classes: int = 1000
    test_size: int | None = None
    test_resize: int | None = None
    license: str | None = None
    hub: str | None = None
    url: str | None = None
    top1: float | None = None
    top5: float | None = None
    accuracy_source: str | None = None

    @property
    def source(self) -> str:
        """Where the file is: hf://user/name or an address."""
        return HUB + self.hub if self.hub else str(self.url)

    @property
    def sha256(self) -> str | None:
        """The first digits of the checksum of the file at `url`, where its name has them."""
        found = re.search(r"-([0-9a-f]{8,})\.\w+$", self.url or "")
        return found and found[1]


def _of_table(model: str, row: dict[str, Any]) -> WeightCard:
    size = row["size"]
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items() if key != "size"}
    figure = next((each for each in MODELS[model].accuracies if each.of == row["tag"]), None)
    figures = {"top1": figure.top1, "top5": figure.top5, "accuracy_source": figure.source} if figure else {}
    return WeightCard(model=model, input_size=(size, size, 3), **given, **figures)


WEIGHT_CARDS: dict[str, WeightCard] = {
    row["tag"]: _of_table(model, row) for model, rows in pretrained().items() for row in rows
}


def weight_card(name: str) -> WeightCard:
    """The card of published weights, by their tag.

    Raises:
      UserError: no such weights; the message names the nearest.
    """
    network, dot, tag = name.partition(".")
    known = f"{ALIASES.get(network, network)}{dot}{tag}"
    if known in WEIGHT_CARDS:
        return WEIGHT_CARDS[known]
    if not dot and network in (*MODELS, *ALIASES):
        tags = list_models(network, pretrained=True)
        raise UserError(f"say which weights of {name}: {', '.join(tags)}" if tags else f"{name} has no published weights")
    raise UserError(did_you_mean("weights", name, WEIGHT_CARDS))
