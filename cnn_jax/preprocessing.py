"""What weights expect of an image: the resize, the crop, the mean and the deviation that they were made with."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import Image as Picture

from cnn_jax.data.decode import BadImage, Interpolation, center, decode, resize_shorter
from cnn_jax.data.folder import printable, read_file
from cnn_jax.errors import BadData, UserError, did_you_mean
from cnn_jax.models import ALIASES, MODELS, model_info
from cnn_jax.models.card import ModelInfo, for_channels
from cnn_jax.weights import WeightCard, network_card, weight_card

Image = str | os.PathLike[str] | bytes | np.ndarray | Picture
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Preprocess:
    """Photographs -> what a network takes, as torchvision's and timm's transforms for evaluation make it.

    The shorter side of an image is brought to `resize` pixels by Pillow, antialiased, by `interpolation`; its middle
    `size` (H, W) is taken, in a black frame where there is less; then (x / 255 - mean) / std for each channel, RGB.

    An image is a path, the bytes of a file, a Pillow image, or uint8 pixels (H, W) or (H, W, C) of 1, 3 or 4 channels.
    Files are read as those libraries read them (data.decode): what is not RGB is converted, alpha is dropped and an
    EXIF rotation is not applied.
    """

    size: tuple[int, int]
    resize: int
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Image | Sequence[Image]) -> np.ndarray:
        """One image, as a batch of one, or several -> (B, H, W, C) float32, normalised.

        Raises:
          UserError: not images as described above. BadData: one that cannot be read, by its path or number.
        """
        images = several(images)
        pixels = np.empty((len(images), *self.size, len(self.mean)), np.uint8)
        for number, image in enumerate(images):
            try:
                pixels[number] = self.pixels(image)
            except BadImage as bad:
                raise BadData(f"{named(image, number)} {bad}") from None
        mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
        return (pixels.astype(np.float32) / 255 - mean) / std

    def pixels(self, image: Image) -> np.ndarray:
        """What the network sees of one image before it is normalised, (H, W, C) uint8.

        Raises:
          BadImage: it cannot be read; says why, not which. UserError: it is no image as described above.
        """
        if isinstance(image, str | os.PathLike):
            image = read_file(os.fsdecode(image))
        elif not isinstance(image, bytes | Picture):
            image = _checked(np.asarray(image))
        resized = resize_shorter(decode(image, len(self.mean)), self.resize, self.interpolation)
        return center(resized, *self.size)


def preprocess(
    of: str | WeightCard | ModelInfo,
    *,
    channels: int | None = None,
    image_size: int | None = None,
    resize: int | None = None,
    crop: float | None = None,
    interpolation: Interpolation | None = None,
    as_tested: bool = False,
) -> Preprocess:
    """What weights, by their card or as weight_card names them, or a network, by its name or card, expect of images.

    "resnet50.tv2_in1k" is what these weights were made with, "resnet50" what the network's card says, for weights of
    one's own. The rest replaces a part of it: `image_size`, the side of the crop; `resize`, the shorter side before
    the crop, or `crop`, the share of it that the crop takes; `interpolation`; another number of `channels` has the
    means of the card's figures. `as_tested` takes the size at which the published accuracy was measured, where that
    is larger than the usual one.

    Raises:
      UserError: no such weights or network; both `resize` and `crop`, or a value that cannot be.
    """
    if isinstance(of, str):
        of = network_named(of) or weight_card(of)
    card = network_card(of.name, image_size, len(of.mean)) if isinstance(of, ModelInfo) else of
    for what, value in (("channels", channels), ("image_size", image_size), ("resize", resize)):
        if value is not None and value < 1:
            raise UserError(f"{what} must be a positive whole number, not {value}")
    if resize is not None and crop is not None:
        raise UserError("resize and crop say the same, the shorter side before the crop: give one of them")
    if crop is not None and not 0 < crop <= 1:
        raise UserError(f"crop is the share of the shorter side that is seen, above 0 and at most 1, not {crop:g}")
    if interpolation is not None and interpolation not in INTERPOLATIONS:
        raise UserError(did_you_mean("interpolation", interpolation, INTERPOLATIONS))
    usual, shorter = card.input_size[:2], card.resize
    if as_tested and card.test_size and card.test_resize:
        usual, shorter = (card.test_size, card.test_size), card.test_resize
    size = usual if image_size is None else (image_size, image_size)
    if crop is not None:
        resize = int(min(size) / crop)
    elif resize is None:
        resize = shorter * min(size) // min(usual)
    mean, std = for_channels(card.mean, card.std, channels or len(card.mean))
    return Preprocess(size, resize, interpolation or card.interpolation, mean, std)


def network_named(name: str) -> ModelInfo | None:
    """The card of the network that a name means; None for that of weights: a tag, hf://user/name, a path.

    Raises:
      UserError: a single word that is neither a network nor a path.
    """
    word = name.isidentifier() and not os.path.exists(name)
    return model_info(name) if word or name in MODELS or name in ALIASES else None


def several(images: Any) -> Sequence[Any]:
    """One image or several, as several. An array of three axes or less is one image."""
    if isinstance(images, str | os.PathLike | bytes | Picture) or getattr(images, "ndim", 4) < 4:
        return [images]
    return images if hasattr(images, "__getitem__") else list(images)


def named(image: Image, number: int) -> str:
    """An image in a message: its path, or its number among others."""
    return printable(image) if isinstance(image, str | os.PathLike) else f"image {number}"


def _checked(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) uint8 as (H, W, C); a UserError for other arrays."""
    shaped = pixels[:, :, None] if pixels.ndim == 2 else pixels
    what = "pixels are (H, W) or (H, W, C) uint8 of 1, 3 or 4 channels"
    if shaped.ndim != 3 or shaped.shape[2] not in (1, 3, 4) or 0 in shaped.shape:
        last = "; channels come last" if shaped.ndim == 3 and shaped.shape[0] in (1, 3, 4) else ""
        raise UserError(f"{what}, not {pixels.shape}{last}")
    if shaped.dtype != np.uint8:
        raise UserError(f"{what}, in [0, 255], not {shaped.dtype}")
    return shaped
