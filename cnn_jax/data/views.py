"""What the host makes of one image: functions (image, channels, key) -> (H, W, channels) uint8.

`image` is an encoded file or (H, W, C) uint8. `key` is (seed, epoch, number of the image), from
which alone a view draws; None where nothing is drawn. All raise BadImage as data.decode does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from cnn_jax.data.crops import Box, crop, random_resized_box, scale_jitter_box
from cnn_jax.data.decode import Interpolation, center_crop, decode
from cnn_jax.errors import UserError

Image = bytes | np.ndarray
Key = tuple[int, int, int] | None
View = Callable[[Image, int, Key], np.ndarray]


def whole(image: Image, channels: int, key: Key) -> np.ndarray:
    """A view of an image: all of it."""
    del key
    return decode(image, channels)


def middle(
    image: Image, channels: int, key: Key, *, size: int, crop: float, interpolation: Interpolation
) -> np.ndarray:
    """A view of an image: what a network is evaluated on."""
    del key
    return center_crop(image, channels, size, crop, interpolation)


def random_part(image: Image, channels: int, key: Key, *, size: int, box: Callable[..., Box]) -> np.ndarray:
    """A view of an image: `box(rng, height, width)` of it, drawn from `key` alone, resized to `size`."""
    return crop(image, channels, size, partial(box, np.random.default_rng(key)))


def training_view(options: dict[str, Any], size: int) -> View | None:
    """The random crop that `options`, the fields of recipes.Augment, ask for; None if they ask for none.

    Raises:
      UserError: a scale jitter to less than `size`.
    """
    if options["crop"] == "random_resized":
        box = partial(random_resized_box, scale=options["crop_scale"], ratio=options["crop_ratio"])
    elif options["crop"] == "scale_jitter":
        if options["jitter"][0] < size:
            raise UserError(f"augment.jitter from {options['jitter'][0]:g} leaves no crop of {size} pixels")
        box = partial(scale_jitter_box, size=size, shorter=options["jitter"])
    else:
        return None
    return partial(random_part, size=size, box=box)
