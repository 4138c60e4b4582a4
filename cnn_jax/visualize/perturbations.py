"""What a class's score owes to each pixel, by covering pixels: occlusion; and how well a map says it, as a number.

Images, `target` and maps are those of visualize.gradients. Not to be jitted as a whole: each covered batch is computed
by itself, by a program that is compiled once.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.visualize.scores import Target, logits, of_targets, targets

BLUR = 5.0, 11  # deviation and width in pixels of RISE's code (eclique/RISE, evaluation.py)


def occlusion(
    model: nn.Module,
    variables: Mapping,
    images: jax.Array,
    target: Target = None,
    *,
    window: int,
    stride: int | None = None,
    fill: float = 0.0,
) -> jax.Array:
    """By how much the class's logit falls when a square is covered (Zeiler & Fergus 1311.2901, sec. 4.2), (B, H, W).

    A square of `window` pixels moves by `stride`, half of it if None, over the image; a pixel has the mean over the
    squares that cover it, as in Captum's Occlusion. `fill` is 0, the mean colour: the paper's grey square.

    Raises:
      UserError: a window that is larger than the image, a stride above it; see targets.
    """
    height, width = images.shape[1:3]
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= stride <= window <= min(height, width):
        raise UserError(
            f"an image of {height}x{width} pixels is covered by windows of 1 to {min(height, width)} that move by at "
            f"most their size, not by {window} moved by {stride}"
        )
    numbers = targets(model, variables, images, target)
    whole = of_targets(logits(model, variables, images), numbers)
    fallen, covered = np.zeros(images.shape[:3], np.float32), np.zeros((height, width), np.float32)
    for row, column in np.ndindex(*(1 + -(-(side - window) // stride) for side in (height, width))):
        square = np.zeros((height, width), np.float32)
        square[row * stride :, column * stride :][:window, :window] = 1
        hidden = jnp.where(square[..., None] > 0, fill, images).astype(images.dtype)
        score = of_targets(logits(model, variables, hidden), numbers)
        fallen += np.asarray(whole - score)[:, None, None] * square
        covered += square
    return jnp.asarray(fallen / covered)


def deletion(
    model: nn.Module,
    variables: Mapping,
    images: jax.Array,
    maps: jax.Array,
    target: Target = None,
    *,
    steps: int = 32,
    fill: float = 0.0,
) -> jax.Array:
    """How fast the class's probability falls as pixels get `fill`, those first that a map has highest, (B,) in [0, 1].

    The area under the probability over the share of pixels taken (Petsiuk 1806.07421, sec. 4.2), in `steps` parts of
    the image: the lower, the better `maps` (B, H, W) say what counts. Of equal pixels the upper left one comes first.

    Raises:
      UserError: maps of another size, fewer than one step; see targets.
    """
    numbers = targets(model, variables, images, target)
    return _area(model, variables, images, jnp.full_like(images, fill), maps, numbers, steps)


def insertion(
    model: nn.Module, variables: Mapping, images: jax.Array, maps: jax.Array, target: Target = None, *, steps: int = 32
) -> jax.Array:
    """How fast the probability rises as a blurred image gets its pixels back, (B,) in [0, 1]: the higher, the better.

    As deletion otherwise. The blur is Gaussian, of 5 pixels' deviation in windows of 11, as in the authors' code.

    Raises:
      UserError: as deletion.
    """
    numbers = targets(model, variables, images, target)
    return _area(model, variables, _blurred(images), images, maps, numbers, steps)


def _area(
    model: nn.Module,
    variables: Mapping,
    before: jax.Array,
    after: jax.Array,
    maps: jax.Array,
    numbers: jax.Array,
    steps: int,
) -> jax.Array:
    """The mean probability on the way from images to images, by the trapezoidal rule; highest pixels first."""
    if maps.shape != before.shape[:3]:
        raise UserError(f"maps of these images are {before.shape[:3]}, not {maps.shape}")
    if steps < 1:
        raise UserError(f"steps must be a positive whole number, not {steps}")
    order = np.argsort(-np.asarray(maps).reshape(len(maps), -1), axis=1, kind="stable")
    rank = np.argsort(order, axis=1).reshape(*maps.shape, 1)
    found = []
    for share in np.linspace(0, 1, steps + 1):
        mixed = jnp.where(rank < round(share * order.shape[1]), after, before)
        found.append(of_targets(jax.nn.softmax(logits(model, variables, mixed)), numbers))
    return jnp.trapezoid(jnp.stack(found), dx=1 / steps, axis=0)


def _blurred(images: jax.Array) -> jax.Array:
    """By a Gaussian, of whose window what lies beyond the image does not count."""
    deviation, width = BLUR
    for axis in (1, 2):
        places = np.arange(images.shape[axis])
        apart = places[:, None] - places
        weights = np.where(abs(apart) <= width // 2, np.exp(-((apart / deviation) ** 2) / 2), 0)
        weights /= weights.sum(1, keepdims=True)
        mixed = jnp.tensordot(weights.astype(images.dtype), images, axes=(1, axis), precision="highest")
        images = jnp.moveaxis(mixed, 0, axis)
    return images
