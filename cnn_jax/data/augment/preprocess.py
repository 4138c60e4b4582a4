"""What a recipe asks for, in one order: images into a network's input, and pairs of them into one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.data.augment.color import color_distortion, pca_color
from cnn_jax.data.augment.geometry import (
    elastic,
    fit,
    flip,
    pad_crop,
    random_affine,
    random_resized_crop,
    scale_jitter,
)
from cnn_jax.data.augment.mixing import cutmix, mixup, random_erasing
from cnn_jax.data.augment.policies import autoaugment, randaugment


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """uint8 (or float in [0, 255]) -> float32 (image / 255 - mean) / std, per channel."""
    return (images.astype(jnp.float32) / 255 - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def make_preprocess(
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    options: dict[str, Any],
    *,
    cropped: bool = False,
) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
    """The function (images, key) -> what a network sees: (B, H, W, C) in [0, 255] -> (B, *size, C) float32.

    `options` are the fields of recipes.Augment. With a key: random crop to `size` (or fit), affine map, elastic
    distortion, pad-and-crop, flip, policy, colour, erasing, normalize, as far as they are asked for. Without one: fit
    and normalize. `cropped` says that training images come randomly cropped from the host, so that `crop` is done.

    Each step has its own key, fold_in(key, its number), so that turning one on leaves the others' draws; the affine
    map has the key itself.
    """
    affine = {name: options[name] for name in ("rotate", "translate", "scale", "shear")}
    crop = None if cropped else options["crop"]

    def preprocess(images: jax.Array, key: jax.Array | None) -> jax.Array:
        if key is None:
            return normalize(fit(images, size), mean, std)
        if crop == "random_resized":
            at = jax.random.fold_in(key, 1)
            images = random_resized_crop(at, images, size, options["crop_scale"], options["crop_ratio"])
        elif crop == "scale_jitter":
            images = scale_jitter(jax.random.fold_in(key, 1), images, size, options["jitter"])
        else:
            images = fit(images, size)
        if any(affine.values()):
            images = random_affine(key, images, **affine)
        if options["elastic"]:
            images = elastic(jax.random.fold_in(key, 2), images, options["elastic"], options["elastic_sigma"])
        if options["pad"]:
            images = pad_crop(jax.random.fold_in(key, 3), images, options["pad"])
        if options["flip"]:
            images = flip(jax.random.fold_in(key, 4), images)
        if options["policy"] == "randaugment":
            count, magnitude = options["policy_count"], options["policy_magnitude"]
            images = randaugment(jax.random.fold_in(key, 5), images, count, magnitude)
        elif options["policy"] == "autoaugment":
            images = autoaugment(jax.random.fold_in(key, 5), images)
        if options["color"] == "pca":
            images = pca_color(jax.random.fold_in(key, 6), images)
        elif options["color"] == "inception":
            images = color_distortion(jax.random.fold_in(key, 6), images)
        if options["erase"]:  # before normalize: its noise is of pixel values
            images = random_erasing(jax.random.fold_in(key, 7), images, options["erase"])
        return normalize(images, mean, std)

    return preprocess


def make_mixing(
    options: dict[str, Any],
) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None:
    """The function (key, images, labels) -> (images, labels) that mixes pairs of a batch, None if none is asked for.

    `options` are the fields of recipes.Augment; `images` (B, H, W, C) as a network sees them, `labels`
    (B, num_classes) probabilities. If both mixup and cutmix are on, each batch has one of them with probability 1/2.
    """
    kinds = [(mix, options[name]) for name, mix in (("mixup", mixup), ("cutmix", cutmix)) if options[name]]

    def mixing(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_kind, key_mix = jax.random.split(key)
        kind = jax.random.randint(key_kind, (), 0, len(kinds))
        return jax.lax.switch(kind, [lambda *args, k=k: k[0](*args, k[1]) for k in kinds], key_mix, images, labels)

    return mixing if kinds else None
