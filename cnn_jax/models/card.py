"""What is known of a network without building it."""

import json
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

import flax.linen as nn

if TYPE_CHECKING:
    from cnn_jax.models.structure import Structure

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # as mean and standard deviation: images in [-1, 1]
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images of CIFAR-10


def both(name: str) -> tuple[str, str]:
    """References of a network that has one name in torchvision and timm."""
    return f"torchvision.{name}", f"timm.{name}"


@dataclass(frozen=True)
class Accuracy:
    """A published figure: `top1` and `top5` accuracy in percent (None where not given), and whence.

    `of` names weights, "resnet50.a1_in1k" (our name of the network, timm's tag; tv_in1k and
    tv2_in1k are torchvision's first and second), or says what the source measured.
    """

    of: str
    top1: float | None
    top5: float | None
    source: str

    @property
    def comparable(self) -> bool:
        """Whether it compares: one centre crop of all ImageNet-1k validation images, trained on ImageNet-1k alone."""
        trained_here = self.of.endswith("in1k") and "_ft_" not in self.of  # ..._ft_in1k: only fine-tuned there
        return trained_here or self.of.endswith(("single crop", "centre crop"))


@dataclass(frozen=True)
class Feature:
    """A tap: `channels`, and input pixels per position, or None for a vector."""

    name: str
    channels: int
    stride: int | None


@dataclass(frozen=True)
class ModelInfo:
    """One row of a family's table.

    `build(**options)` makes the linen module. `params` counts trainable parameters at the
    default options without auxiliary heads, `aux_params` those of the heads, `fixed` those that
    the paper sets by hand. `macs` are multiply-accumulates of convolutions and linear layers for
    one image of `input_size` (H, W, C). An image in [0, 1] enters the network as
    (image - mean) / std, per channel, after a resize by `interpolation` and a centre crop of
    `crop` of its shorter side. `references` are the networks of other libraries with the same layers, whose
    weights load: "torchvision.resnet50", "timm.resnet50"; tests/golden holds those whose outputs were compared.
    `aliases` are names by which it is asked for elsewhere; create_model and model_info take them too.
    """

    name: str
    build: Callable[..., nn.Module]
    summary: str
    section: str
    _: KW_ONLY
    params: int
    macs: int
    paper: str
    year: int
    input_size: tuple[int, int, int] = (224, 224, 3)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop: float = 0.875
    references: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    aux_params: int = 0
    fixed: int = 0
    num_classes: int = 1000

    def normalization(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std for images of that many channels, see for_channels."""
        return for_channels(self.mean, self.std, channels)

    @property
    def accuracies(self) -> tuple[Accuracy, ...]:
        """Published top-1 and top-5 on ImageNet-1k validation, single crop unless `of` says else."""
        return tuple(Accuracy(**row) for row in _published().get(self.name, ()))

    @property
    def weights(self) -> tuple[str, ...]:
        """Tags of published weights that load into this network, such as "resnet50.tv_in1k"."""
        return tuple(row["tag"] for row in pretrained().get(self.name, ()))

    @property
    def structure(self) -> "Structure":
        """Layers, taps and shapes of variables with the default options, by abstract evaluation."""
        return _structure(self)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The taps of extract_features in the order of the network, at the card's input size."""

        def stride(height: int) -> int:
            # Every stride here is a power of two; padding, or none, moves the ratio of sizes by 0.9 to 1.7.
            return 2 ** int(math.log2(self.input_size[0] / height) + 0.2)

        return tuple(
            Feature(name, shape[-1], stride(shape[0]) if len(shape) == 3 else None)
            for name, shape in self.structure.taps.items()
        )


def for_channels(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for images of that many channels: as they are, or their averages, repeated."""
    if channels == len(mean):
        return mean, std
    return (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels


@cache
def pretrained() -> dict[str, list[dict]]:
    """For each network rows of weights that load into it: pretrained.json, of which weights.WeightCard is made."""
    return _rows("pretrained.json")


@cache
def _published() -> dict[str, list[dict]]:
    return _rows("published.json")


def _rows(file: str) -> dict[str, list[dict]]:
    return json.loads(resources.files("cnn_jax.models").joinpath(file).read_text())


@cache
def _structure(info: ModelInfo) -> "Structure":
    from cnn_jax.models.structure import structure  # JAX is not needed to read a card

    return structure(info.build(), info.input_size)
