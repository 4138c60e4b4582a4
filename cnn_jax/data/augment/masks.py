"""What the augmentation of an image does to the mask of its pixels' classes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data.augment.geometry import flip, pad_crop
from cnn_jax.data.dataset import IGNORED


def make_mask_preprocess(
    size: tuple[int, int], options: dict[str, Any]
) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
    """The function (masks, key) -> masks as make_preprocess moves their images: (B, H, W) uint8 -> (B, *size) uint8.

    `options` are the fields of recipes.Augment; with the same key the same pixels are moved to the same places. What
    comes in from outside the image is IGNORED. Of what moves pixels `pad` and `flip` are done; recipes refuse the rest.
    """

    def preprocess(masks: jax.Array, key: jax.Array | None) -> jax.Array:
        masks = fit_mask(masks, size)[..., None]
        if key is not None and options["pad"]:
            framed = masks + jnp.uint8(1)  # IGNORED becomes 0, which is what the frame is made of
            masks = pad_crop(jax.random.fold_in(key, 3), framed, options["pad"]) - jnp.uint8(1)
        if key is not None and options["flip"]:
            masks = flip(jax.random.fold_in(key, 4), masks)
        return masks[..., 0]

    return preprocess


def fit_mask(masks: jax.Array, size: tuple[int, int]) -> jax.Array:
    """geometry.fit for masks: a frame of IGNORED where smaller, the nearest pixel where larger."""
    for axis, to in enumerate(size, start=1):
        side = masks.shape[axis]
        if side > to:
            masks = jnp.take(masks, np.floor((np.arange(to) + 0.5) * side / to).astype(int), axis)
        pads = [(0, 0)] * masks.ndim
        pads[axis] = (max(to - side, 0) // 2, max(to - side, 0) - max(to - side, 0) // 2)
        masks = jnp.pad(masks, pads, constant_values=IGNORED)
    return masks
