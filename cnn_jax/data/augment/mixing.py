"""Images made of two, and images with a piece missing."""

import jax
import jax.numpy as jnp

from cnn_jax.data.augment.geometry import crop_boxes


def mixup(key: jax.Array, images: jax.Array, labels: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Each image and its label blended with the one before it in the batch: lambda * own + (1 - lambda) * other.

    Zhang 2017 (1710.09412), sec. 2: lambda ~ Beta(alpha, alpha), of alpha in [0.1, 0.4] for ImageNet (sec. 3.1). Here
    each image draws its own. `images` (B, H, W, C) of any range, `labels` (B, num_classes) probabilities.
    """
    share = jax.random.beta(key, alpha, alpha, (len(images), 1))
    return blend(images, share[:, :, None, None]), blend(labels, share)


def cutmix(key: jax.Array, images: jax.Array, labels: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """A box of each image replaced by the same box of the one before it; the label in proportion to the areas.

    Yun 2019 (1905.04899), sec. 3.1: lambda ~ Beta(alpha, alpha), alpha = 1 there; the box has sqrt(1 - lambda) of each
    side and its centre anywhere, so that the image's edges may cut it. Arguments as for `mixup`.
    """
    key_share, key_place = jax.random.split(key)
    batch, height, width, _ = images.shape
    size = jnp.array([height, width])
    half = (size * jnp.sqrt(1 - jax.random.beta(key_share, alpha, alpha, (batch, 1)))).astype(jnp.int32) // 2
    centre = jax.random.randint(key_place, (batch, 2), 0, size)
    low, high = jnp.clip(centre - half, 0, size), jnp.clip(centre + half, 0, size)
    share = 1 - jnp.prod(high - low, 1, keepdims=True) / (height * width)
    mixed = jnp.where(inside(low, high, (height, width)), jnp.roll(images, 1, 0), images)
    return mixed, blend(labels, share)


def random_erasing(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """With `probability`, a box of each image is replaced by noise, uniform in [0, 255] in each pixel and channel.

    Zhong 2017 (1708.04896), algorithm 1: 2% to 40% of the area, of a ratio between 0.3 and 1 / 0.3, its amounts. As in
    torchvision and timm the ratio's logarithm is uniform and a box is placed where it fits; the paper draws the ratio
    itself, and again while the box leaves the image.
    """
    key_whether, key_box, key_noise = jax.random.split(key, 3)
    batch, height, width, _ = images.shape
    boxes = crop_boxes(key_box, batch, (height, width), (0.02, 0.4), (0.3, 1 / 0.3))
    erased = inside(boxes[:, :2], boxes[:, :2] + boxes[:, 2:], (height, width))
    erased &= jax.random.bernoulli(key_whether, probability, (batch, 1, 1, 1))
    noise = jax.random.uniform(key_noise, images.shape, maxval=255)
    return jnp.where(erased, noise, images.astype(jnp.float32)).astype(jnp.result_type(images, 0.0))


def blend(values: jax.Array, share: jax.Array) -> jax.Array:
    """`share` of each of the batch, the rest of the one before it (of the first: the last); the type is kept.

    The neighbour is any other image, as the order of the images is random; on many devices only one image a device
    crosses to the next.
    """
    mixed = share * values.astype(jnp.float32) + (1 - share) * jnp.roll(values, 1, 0).astype(jnp.float32)
    return mixed.astype(jnp.result_type(values, 0.0))


def inside(low: jax.Array, high: jax.Array, size: tuple[int, int]) -> jax.Array:
    """(B, H, W, 1) bool: which pixels lie in each box, rows low[:, 0] to high[:, 0] - 1, columns likewise."""
    rows, columns = (
        (low[:, axis, None] <= jnp.arange(size[axis])) & (jnp.arange(size[axis]) < high[:, axis, None])
        for axis in (0, 1)
    )
    return rows[:, :, None, None] & columns[:, None, :, None]
