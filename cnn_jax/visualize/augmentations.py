"""A contact sheet of all augmentations, for a person to check."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cnn_jax.data import augment
from cnn_jax.data.augment import policies
from cnn_jax.visualize.figure import save

DRAWS = 7  # a row, after the original
GAP = 3  # white pixels after each image


def mixed(mix: Callable, key: jax.Array, images: jax.Array) -> jax.Array:
    """`mix` without its labels."""
    return mix(key, images, jnp.eye(len(images)), 1.0)[0]


def by_magnitude(name: str, key: jax.Array, images: jax.Array) -> jax.Array:
    """An operation of policies.OPERATIONS on each of (B, H, W, C), the magnitude rising from 0 to 10."""
    del key
    low, high, _ = policies.OPERATIONS[name]
    place = jnp.full(len(images), policies.PLACE[name])
    return policies.operate(policies.whole(images), place, jnp.linspace(low, high, len(images)))


def rows(size: int) -> dict[str, tuple[str, Callable[[jax.Array, jax.Array], jax.Array]]]:
    """Each row's name, what it is drawn of ("digit", "photo", "pair") and how, for photos of `size` pixels a side."""
    crop = (size, size)
    jitter = (size * 256 / 224, size * 480 / 224)  # He 2015, sec. 3.4
    affine = partial(augment.random_affine, rotate=10, translate=2, scale=0.12, shear=0.1)
    return {
        "affine maps, of LeNet's recipes": ("digit", affine),
        "elastic, alpha 34, sigma 4": ("digit", augment.elastic),
        "flip": ("photo", augment.flip),
        "pad-and-crop, an eighth of the side": ("photo", partial(augment.pad_crop, pad=size // 8)),
        "random-resized crop, 8 to 100%": ("photo", partial(augment.random_resized_crop, size=crop)),
        "scale jitter, 256 to 480 for 224": ("photo", partial(augment.scale_jitter, size=crop, sides=jitter)),
        "AlexNet's colours, std 0.1": ("photo", augment.pca_color),
        "the same, std 1 (to see it)": ("photo", partial(augment.pca_color, std=1.0)),
        "Inception's colours": ("photo", augment.color_distortion),
        "random erasing": ("photo", partial(augment.random_erasing, probability=1.0)),
        "mixup, alpha 1": ("pair", partial(mixed, augment.mixup)),
        "cutmix, alpha 1": ("pair", partial(mixed, augment.cutmix)),
        "RandAugment, 2 of magnitude 9": ("photo", augment.randaugment),
        "AutoAugment, ImageNet's policy": ("photo", augment.autoaugment),
    } | {
        f"{name}, {low:.3g} to {high:.3g}" if low < high else name: ("photo", partial(by_magnitude, name))
        for name, (low, high, _) in policies.OPERATIONS.items()
        if name != "Identity"
    }


def draw_augmentations(path: Path, images: np.ndarray, digits: np.ndarray) -> None:
    """Draws a PNG with a row for each augmentation: its name, an original, seven draws of it.

    `images` (N, S, S, 3) uint8, two or more, are shown in turn; `digits` (M, H, W, 1) uint8 where the augmentation is
    of LeNet's time. Operations of policies go from magnitude 0 to 10. docs/images/augmentations.png is one, of
    scikit-image's chelsea, coffee (both CC0) and astronaut (public domain), and of mnist_5k.
    """
    drawn = rows(images.shape[1])
    half = -(-len(drawn) // 2)
    figure = Figure(figsize=(12.5, 0.97 * half), layout="constrained")
    cells = figure.subplots(half, 2, squeeze=False).T.ravel()
    for axes in cells:
        axes.set_axis_off()
    for number, (axes, (name, (kind, function))) in enumerate(zip(cells, drawn.items(), strict=False)):
        source = digits if kind == "digit" else images
        original, other = source[number % len(source)], source[(number + 1) % len(source)]
        batch = np.stack([other, original] * DRAWS if kind == "pair" else [original] * DRAWS)
        made = np.asarray(jax.jit(function)(jax.random.key(number), batch))
        if kind == "pair":  # the original with the one before it in the batch
            made = made[1::2]
        framed = [np.pad(image, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for image in (original, *made)]
        axes.imshow(np.concatenate(framed, 1).round().clip(0, 255).astype(np.uint8), cmap="gray", vmin=0, vmax=255)
        axes.axvline(original.shape[1] + GAP / 2 - 0.5, color="black", linewidth=1)
        axes.set_title(name, fontsize=9, pad=2, loc="left")
    save(figure, path, dpi=80)
