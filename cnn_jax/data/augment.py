"""From uint8 pixels to what a network sees, on the device and inside the compiled step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


def fit(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Brings (B, H, W, C) to (B, *size, C): a black frame where smaller, bilinear resize where larger.

    Images stay centred, as MNIST's 28x28 digits do in LeNet's 32x32 (LeCun 1998, sec. III.A).
    """
    batch, height, width, channels = images.shape
    target = (min(height, size[0]), min(width, size[1]))
    if target != (height, width):
        resized = jax.image.resize(images.astype(jnp.float32), (batch, *target, channels), "linear")
        images = jnp.round(resized).astype(images.dtype)
    pads = [((s - t) // 2, s - t - (s - t) // 2) for s, t in zip(size, target, strict=True)]
    return jnp.pad(images, [(0, 0), *pads, (0, 0)])


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """uint8 (or float in [0, 255]) -> float32 (image / 255 - mean) / std, per channel."""
    return (images.astype(jnp.float32) / 255 - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def make_preprocess(
    size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...], distortions: dict[str, float]
) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
    """The function (images, key) -> what a network sees: fit, random_affine if a key is given, normalize.

    `distortions` are random_affine's amounts; if all are 0 nothing is distorted.
    """

    def preprocess(images: jax.Array, key: jax.Array | None) -> jax.Array:
        images = fit(images, size)
        if key is not None and any(distortions.values()):
            images = random_affine(key, images, **distortions)
        return normalize(images, mean, std)

    return preprocess


def random_affine(
    key: jax.Array,
    images: jax.Array,
    *,
    rotate: float = 0.0,
    translate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
) -> jax.Array:
    """Moves each image by a random planar affine map about its centre; what comes in is 0.

    (B, H, W, C) -> (B, H, W, C) float32, bilinear. LeCun 1998, sec. III.A: "horizontal and
    vertical translations, scaling, squeezing, horizontal shearing". Each image draws, uniformly,
    an angle of up to `rotate` degrees, a shift of up to `translate` pixels per axis, a factor of
    1 +- `scale` per axis (their ratio is the squeezing) and up to `shear` pixels a row.
    """
    batch, height, width, _ = images.shape
    draws = jax.random.uniform(key, (batch, 6), minval=-1.0, maxval=1.0)
    angle = jnp.deg2rad(rotate) * draws[:, 0]
    shift = translate * draws[:, 1:3]
    stretch = 1 + scale * draws[:, 3:5]
    slant = shear * draws[:, 5]

    # Inverse map: for each output pixel, the place in the input it comes from.
    cos, sin, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros(batch), jnp.ones(batch)
    rotation = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], 1)
    shearing = jnp.stack([jnp.stack([one, zero], -1), jnp.stack([slant, one], -1)], 1)
    matrix = rotation @ shearing / stretch[:, :, None]

    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1) - centre
    places = jnp.einsum("bij,bhwj->bihw", matrix, grid - shift[:, None, None]) + centre[:, None, None]

    def sample(image: jax.Array, place: jax.Array) -> jax.Array:
        by_channel = jax.vmap(lambda channel: map_coordinates(channel, list(place), order=1), -1, -1)
        return by_channel(image.astype(jnp.float32))

    return jax.vmap(sample)(images, places)
