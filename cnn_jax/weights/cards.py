"""Cards of weights: where they lie, whose layout they have, how images enter the network."""

import json
import math
import re
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cnn_jax.errors import UserError, did_you_mean, first_line
from cnn_jax.models import ALIASES, MODELS, list_models, model_info
from cnn_jax.models.card import IMAGENET_MEAN, IMAGENET_STD, pretrained
from cnn_jax.weights.hub import from_hub

HUB = "hf://"
WEIGHTS, CONFIG = "model.safetensors", "config.json"  # of a folder or repository in timm's format
INSTEAD = f"a folder with its {CONFIG} and {WEIGHTS} will do as well"


@dataclass(frozen=True)
class WeightCard:
    """Weights as someone published them.

    `tag` is our name of the network, a dot and the publisher's name of the weights: timm's; tv_in1k and tv2_in1k are
    torchvision's first and second. Of weights beyond the table it says where they are. `reference` says in whose
    layout the file is. An image in [0, 1], RGB also where the file is made for BGR, enters the network as
    (image - mean) / std per channel, after a resize of its shorter side to `resize` pixels by `interpolation` and a
    centre crop of `input_size` (H, W, C). `test_size` and `test_resize` are what the publisher advises for tests,
    where that differs. The file is at `path`, or in the repository `hub` of the Hugging Face Hub, or at `url`, which
    otherwise is where it first was. `top1` and `top5` are the first published figures, in percent. `classes` are
    names in order, where the weights' own configuration has some.
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
    path: Path | None = None
    top1: float | None = None
    top5: float | None = None
    accuracy_source: str | None = None
    classes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def source(self) -> str:
        """Where the file is: a path, hf://user/name or an address."""
        return str(self.path or (HUB + self.hub if self.hub else self.url))

    @property
    def sha256(self) -> str | None:
        """The first digits of the checksum of the file at `url`, where its name has them."""
        found = re.search(r"-([0-9a-f]{8,})\.\w+$", self.url or "")
        return found and found[1]

    @property
    def names(self) -> tuple[str, ...]:
        """What the file is called in weights.hub.folder(), and what else it may be called elsewhere."""
        published = () if self.url is None else (self.url.rpartition("/")[2],)
        return (f"{self.tag}.safetensors", *published) if self.hub else published

    @property
    def crop(self) -> float:
        """The crop as timm says it, a share of the resized image: floor(size / crop) is `resize`."""
        size = self.input_size[0]
        share = size / self.resize
        return share if math.floor(size / share) == self.resize else math.nextafter(share, 0)


def _of_table(model: str, row: dict[str, Any]) -> WeightCard:
    size = row["size"]
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k != "size"}
    if figure := next((each for each in MODELS[model].accuracies if each.of == row["tag"]), None):
        given |= {"top1": figure.top1, "top5": figure.top5, "accuracy_source": figure.source}
    return WeightCard(model=model, input_size=(size, size, 3), **given)


WEIGHT_CARDS: dict[str, WeightCard] = {
    row["tag"]: _of_table(model, row) for model, rows in pretrained().items() for row in rows
}


def weight_card(name: str) -> WeightCard:
    """The card of weights: by the tag of published ones, hf://user/name for a repository in timm's format, or a path.

    A folder has timm's config.json; a file is known by its name, as it was published or TAG.safetensors.

    Raises:
      UserError: no such weights; the message names the nearest, or says what would be right.
    """
    network, dot, tag = name.partition(".")
    known = f"{ALIASES.get(network, network)}{dot}{tag}"
    if known in WEIGHT_CARDS:
        return WEIGHT_CARDS[known]
    path = Path(name)
    if name.startswith(HUB):
        repository = name.removeprefix(HUB)
        return _configured(from_hub(repository, CONFIG, INSTEAD), name, hub=repository)
    if name and path.is_dir():
        return _configured(path / CONFIG, name, path=path / WEIGHTS)
    if path.is_file():
        if card := next((card for card in WEIGHT_CARDS.values() if path.name in card.names), None):
            return replace(card, path=path)
        raise UserError(f"{path.name} is no name of published weights; import_state_dict takes any file of a network")
    if "/" in name or path.suffix in (".safetensors", ".npz", ".pth", ".pt", ".bin"):
        raise UserError(f"no file or folder {name}")
    if not dot and network in (*MODELS, *ALIASES):
        tags = ", ".join(list_models(network, pretrained=True))
        raise UserError(f"say which weights of {name}: {tags}" if tags else f"{name} has no published weights")
    raise UserError(did_you_mean("weights", name, WEIGHT_CARDS))


def network_card(name: str, size: int | None = None, channels: int = 3) -> WeightCard:
    """How images of `size` pixels, or the network's own, enter a network whose weights say nothing of that."""
    info = model_info(name)
    size = size or info.input_size[0]
    mean, std = info.normalization(channels)
    return WeightCard(
        info.name,
        info.name,
        "",
        input_size=(size, size, channels),
        resize=math.floor(size / info.crop),
        interpolation=info.interpolation,
        mean=mean,
        std=std,
        num_classes=info.num_classes,
    )


def _configured(file: Path, name: str, **where: Any) -> WeightCard:
    """What a config.json of timm's says, or leaves to timm's defaults; older ones have everything at one level."""
    networks = {each.removeprefix("timm."): info.name for info in MODELS.values() for each in info.references}
    try:
        values = json.loads(file.read_text())
        about = values.get("pretrained_cfg", values)
        architecture, described = values["architecture"], values.get("label_descriptions") or {}
        channels, height, width = about.get("input_size") or (3, 224, 224)
        crop = about.get("crop_pct") or 0.875
        tested = (about.get("test_input_size") or (channels, height, width))[1]
        resize, test_resize = math.floor(height / crop), math.floor(tested / (about.get("test_crop_pct") or crop))
        differs = (tested, test_resize) != (height, resize)
        for key, known in (("interpolation", ("bilinear", "bicubic")), ("crop_mode", ("center",))):
            if about.get(key, known[-1]) not in known:
                raise UserError(f"{name} wants {key} {about[key]!r}; known here: {', '.join(known)}")
        card = WeightCard(
            name,
            networks.get(architecture, ""),
            f"timm.{architecture}",
            input_size=(height, width, channels),
            resize=resize,
            interpolation=about.get("interpolation", "bicubic"),
            mean=tuple(map(float, about.get("mean") or IMAGENET_MEAN)),
            std=tuple(map(float, about.get("std") or IMAGENET_STD)),
            num_classes=int(values.get("num_classes", about.get("num_classes", 1000))),
            test_size=tested if differs else None,
            test_resize=test_resize if differs else None,
            license=about.get("license"),
            classes=tuple(described.get(label, label) for label in values.get("label_names") or ()),
            **where,
        )
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{file.parent} has no {file.name} that says which network its weights are of") from None
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:  # any JSON
        raise UserError(f"{file} is no configuration of timm's: {first_line(error)}") from error
    if not card.model:
        known = [each.removeprefix("timm.") for info in MODELS.values() for each in info.references if "timm." in each]
        raise UserError(f"{name}: {did_you_mean('architecture', str(architecture), known)}")
    return card
