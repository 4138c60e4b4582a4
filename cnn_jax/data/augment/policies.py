"""AutoAugment (Cubuk 2018, 1805.09501) and RandAugment (Cubuk 2019, 1909.13719): Pillow's operations, drawn at random.

The operations are of three kinds: a warp, a table of new values, a blend with another image. Where a switch computes
all its branches (each.py) these are three, not fourteen, and what is left to choose inside them is small.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data.augment.each import each
from cnn_jax.errors import UserError

GREY = 128  # what comes in from outside the image: tensorflow/tpu, efficientnet/autoaugment.py, `replace_value`


class Range(NamedTuple):
    """Magnitude m of 0 to 10 means low + (high - low) * m / 10, either way if `signed`."""

    low: float = 0.0
    high: float = 0.0
    signed: bool = False


# Cubuk 2018, appendix, list of operations and their ranges, here by kind. Translations are shares of the side: 150
# pixels of the 331 of its ImageNet networks. A larger magnitude posterizes and solarizes less, as in the authors' code.
WARPS = {
    "ShearX": Range(0, 0.3, signed=True),
    "ShearY": Range(0, 0.3, signed=True),
    "TranslateX": Range(0, 150 / 331, signed=True),
    "TranslateY": Range(0, 150 / 331, signed=True),
    "Rotate": Range(0, 30, signed=True),  # degrees
}
TABLES = {
    "AutoContrast": Range(),
    "Invert": Range(),
    "Equalize": Range(),
    "Solarize": Range(0, 256),  # values from here on are inverted
    "Posterize": Range(4, 8),  # bits that are kept
}
BLENDS = {
    "Contrast": Range(0.1, 1.9),
    "Color": Range(0.1, 1.9),
    "Brightness": Range(0.1, 1.9),
    "Sharpness": Range(0.1, 1.9),
}
OPERATIONS = {"Identity": Range()} | WARPS | TABLES | BLENDS
PLACE = {name: place for place, name in enumerate(OPERATIONS)}

# Cubuk 2019, sec. 3: the fourteen that RandAugment draws from.
RANDAUGMENT = tuple(name for name in OPERATIONS if name != "Invert")

# Cubuk 2018, appendix, the policy found on ImageNet: 25 pairs of (operation, probability, magnitude).
IMAGENET_POLICY = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 2)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 8), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
    (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
)


def randaugment(key: jax.Array, images: jax.Array, count: int = 2, magnitude: float = 9.0) -> jax.Array:
    """`count` operations on each image, drawn from RANDAUGMENT with replacement, all of one magnitude.

    Cubuk 2019, sec. 3; 2 and 9 are its ResNet-50's on ImageNet. Magnitudes beyond 10 extrapolate, up to the paper's
    30. (B, H, W, C), C = 1 or 3 -> the same, whole values in [0, 255].
    """
    among = jnp.array([PLACE[name] for name in RANDAUGMENT])
    pixels = whole(images)
    for k in jax.random.split(key, count):
        key_operation, key_sign = jax.random.split(k)
        operations = jax.random.choice(key_operation, among, (len(images),))
        pixels = operate(pixels, operations, signed_values(key_sign, operations, jnp.full(len(images), magnitude)))
    return pixels.astype(jnp.result_type(images, 0.0))


def autoaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    """One of IMAGENET_POLICY's 25 pairs of operations on each image, each operation with its probability.

    Cubuk 2018, sec. 3. (B, H, W, C), C = 1 or 3 -> the same, whole values in [0, 255].
    """
    table = jnp.array([[(PLACE[name], *rest) for name, *rest in pair] for pair in IMAGENET_POLICY])
    key_pair, *keys = jax.random.split(key, 3)
    drawn = table[jax.random.randint(key_pair, (len(images),), 0, len(table))]
    pixels = whole(images)
    for k, (named, share, magnitude) in zip(keys, jnp.moveaxis(drawn, 0, -1), strict=True):
        key_whether, key_sign = jax.random.split(k)
        operations = jnp.where(jax.random.bernoulli(key_whether, share), named, PLACE["Identity"]).astype(jnp.int32)
        pixels = operate(pixels, operations, signed_values(key_sign, operations, magnitude))
    return pixels.astype(jnp.result_type(images, 0.0))


def whole(images: jax.Array) -> jax.Array:
    """Any images of 1 or 3 channels as whole values: uint8."""
    if images.shape[-1] not in (1, 3):
        raise UserError(f"policies need images of 1 or 3 channels, not {images.shape[-1]}")
    return jnp.clip(jnp.round(images.astype(jnp.float32)), 0, 255).astype(jnp.uint8)


def signed_values(key: jax.Array, operations: jax.Array, magnitudes: jax.Array) -> jax.Array:
    """Places in OPERATIONS and magnitudes, (B,) each -> what each operation is given, with its sign drawn: (B,)."""
    low, high, signed = (jnp.array(column)[operations] for column in zip(*OPERATIONS.values(), strict=True))
    value = low + (high - low) * magnitudes / 10
    return jnp.where(signed & jax.random.bernoulli(key, shape=value.shape), -value, value)


def operate(pixels: jax.Array, operations: jax.Array, values: jax.Array) -> jax.Array:
    """An operation, by its place in OPERATIONS, on each image: (B, H, W, C) uint8, (B,), (B,) -> (B, H, W, C) uint8."""
    kinds = np.repeat(np.arange(4), [1, len(WARPS), len(TABLES), len(BLENDS)])
    places = np.concatenate([np.arange(n) for n in np.bincount(kinds)])

    def one(image: jax.Array, operation: jax.Array, value: jax.Array) -> jax.Array:
        kind, place = jnp.array(kinds)[operation], jnp.array(places)[operation]
        return jax.lax.switch(kind, (lambda image, *_: image, warped, looked_up, blended), image, place, value)

    return each(one, pixels, operations, values)


def warped(image: jax.Array, place: jax.Array, value: jax.Array) -> jax.Array:
    """Pillow's transform(AFFINE, NEAREST) by a row of WARPS: from where the middle of each new pixel comes."""
    height, width, _ = image.shape
    turn = jnp.deg2rad(value)
    cos, sin, middle = jnp.cos(turn), jnp.sin(turn), (width / 2, height / 2)
    matrices = {  # a new pixel's (x, y, 1) -> its (x, y) in the image
        "ShearX": [[1, value, 0], [0, 1, 0]],
        "ShearY": [[1, 0, 0], [value, 1, 0]],
        "TranslateX": [[1, 0, value * width], [0, 1, 0]],
        "TranslateY": [[1, 0, 0], [0, 1, value * height]],
        "Rotate": [
            [cos, -sin, middle[0] - cos * middle[0] + sin * middle[1]],
            [sin, cos, middle[1] - sin * middle[0] - cos * middle[1]],
        ],
    }
    x, y = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    matrix = jnp.array([matrices[name] for name in WARPS], jnp.float32)[place]
    column, row = (jnp.floor(a * x + b * y + c).astype(jnp.int32) for a, b, c in matrix)
    there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return jnp.where(there[:, :, None], image[row, column], GREY)


def looked_up(image: jax.Array, place: jax.Array, value: jax.Array) -> jax.Array:
    """Pillow's ImageOps by a row of TABLES: a new value for each of 256 old ones, channel by channel."""
    levels = jnp.tile(jnp.arange(256)[:, None], image.shape[-1])
    lost = 8 - jnp.clip(value, 0, 8).astype(jnp.int32)
    tables = {
        "AutoContrast": lambda: stretched(image, levels),
        "Invert": lambda: 255 - levels,
        "Equalize": lambda: equalized(image, levels),
        "Solarize": lambda: jnp.where(levels < value.astype(jnp.int32), levels, 255 - levels),
        "Posterize": lambda: levels >> lost << lost,
    }
    table = jax.lax.switch(place, [tables[name] for name in TABLES]).astype(jnp.uint8)
    return jnp.take_along_axis(table, image.reshape(-1, image.shape[-1]), 0).reshape(image.shape)


def blended(image: jax.Array, place: jax.Array, value: jax.Array) -> jax.Array:
    """Pillow's ImageEnhance by a row of BLENDS: from another image (value 0) to this one (1) and beyond."""
    image = image.astype(jnp.int32)
    others = {
        "Contrast": lambda: jnp.full_like(image, jnp.floor(luma(image).mean() + 0.5)),
        "Color": lambda: jnp.broadcast_to(luma(image), image.shape),
        "Brightness": lambda: jnp.zeros_like(image),
        "Sharpness": lambda: smooth(image),
    }
    other = jax.lax.switch(place, [others[name] for name in BLENDS])
    return jnp.clip(other + value * (image - other), 0, 255).astype(jnp.uint8)


def luma(image: jax.Array) -> jax.Array:
    """(H, W, C) -> (H, W, 1) int32: ITU-R 601-2 in Pillow's fixed-point numbers; a grey image as it is."""
    if image.shape[-1] == 1:
        return image
    return (image * np.array([19595, 38470, 7471])).sum(-1, keepdims=True) + 0x8000 >> 16


def smooth(image: jax.Array) -> jax.Array:
    """(H, W, C) int32: Pillow's SMOOTH, the mean of 3x3 pixels with the middle one five times; the rim as it is."""
    height, width, _ = image.shape
    around = sum(image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    return image.at[1:-1, 1:-1].set(jnp.round((around + 4 * image[1:-1, 1:-1]) / 13).astype(jnp.int32))


def stretched(image: jax.Array, levels: jax.Array) -> jax.Array:
    """(256, C) int32: each channel's darkest value becomes 0, its brightest 255 (ImageOps.autocontrast)."""
    low, high = image.min((0, 1)).astype(jnp.int32), image.max((0, 1)).astype(jnp.int32)
    return jnp.where(low < high, jnp.clip((levels - low) * 255 // jnp.maximum(high - low, 1), 0, 255), levels)


def equalized(image: jax.Array, levels: jax.Array) -> jax.Array:
    """(256, C) int32: each channel's values spread so that all occur about as often (ImageOps.equalize)."""
    channels = image.shape[-1]
    pixels = image.reshape(-1, channels).astype(jnp.int32)
    counts = jnp.zeros_like(levels).reshape(-1).at[pixels * channels + jnp.arange(channels)].add(1).reshape(256, -1)
    step = (len(pixels) - jnp.take_along_axis(counts, pixels.max(0)[None], 0)) // 255
    darker = jnp.cumsum(counts, 0) - counts
    return jnp.where(step > 0, jnp.clip((step // 2 + darker) // jnp.maximum(step, 1), 0, 255), levels)
