"""Where the pixels go: sizes, crops, flips and distortions."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from cnn_jax.errors import UserError


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


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability 1/2 (Krizhevsky 2012, sec. 4.1); keeps the type."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def pad_crop(key: jax.Array, images: jax.Array, pad: int) -> jax.Array:
    """A frame of `pad` black pixels a side, then a random crop of the old size (He 2015, sec. 4.2); keeps the type."""
    framed = jnp.pad(images, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)
    return jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), images.shape[1:]))(framed, corners)


def crop_boxes(
    key: jax.Array, count: int, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> jax.Array:
    """Random boxes in an image of `size` (H, W): (count, 4) float32 rows (top, left, height, width) of whole pixels.

    Szegedy 2014 (1409.4842), sec. 6: the area is uniform in `scale` as a share of the image's; the logarithm of
    width / height is uniform in log `ratio`, as in torchvision's RandomResizedCrop, whose ten tries and central box
    for none that fits these are; here the tries are drawn together and the first that fits is taken.
    """
    height, width = size
    key_area, key_ratio, key_place = jax.random.split(key, 3)
    area = height * width * jax.random.uniform(key_area, (count, 10), minval=scale[0], maxval=scale[1])
    low, high = jnp.log(jnp.array(ratio))
    shape = jnp.exp(jax.random.uniform(key_ratio, (count, 10), minval=low, maxval=high))
    tries = jnp.stack([jnp.round(jnp.sqrt(area / shape)), jnp.round(jnp.sqrt(area * shape))], -1)
    fits = ((tries >= 1) & (tries <= jnp.array(size))).all(-1)
    first = jnp.take_along_axis(tries, fits.argmax(1)[:, None, None], 1)[:, 0]
    central = (min(height, round(width / ratio[0])), min(width, round(height * ratio[1])))
    sides = jnp.where(fits.any(1)[:, None], first, jnp.array(central, jnp.float32))
    room = jnp.array(size) - sides
    places = jnp.floor(jax.random.uniform(key_place, (count, 2)) * (room + 1))
    return jnp.concatenate([jnp.where(fits.any(1)[:, None], places, room // 2), sides], 1)


def resample(images: jax.Array, boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The part of each image in its box (top, left, height, width), resized to `size`: (B, *size, C).

    Bilinear, and smoothed where it shrinks, as Pillow's BILINEAR; TensorFlow's and OpenCV's are not smoothed.
    """
    shape = (*size, images.shape[-1])

    def one(image: jax.Array, box: jax.Array) -> jax.Array:
        scale = jnp.array(size) / box[2:]
        return jax.image.scale_and_translate(image, shape, (0, 1), scale, -box[:2] * scale, "linear", antialias=True)

    return jax.vmap(one)(images.astype(jnp.float32), boxes).astype(jnp.result_type(images, 0.0))


def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    size: tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """A box of 8% to 100% of each image's area and of ratio 3/4 to 4/3, resized to (B, *size, C).

    Szegedy 2014 (1409.4842), sec. 6; `crop_boxes` says how the boxes are drawn.
    """
    batch, height, width, _ = images.shape
    return resample(images, crop_boxes(key, batch, (height, width), scale, ratio), size)


def scale_jitter(key: jax.Array, images: jax.Array, size: tuple[int, int], sides: tuple[float, float]) -> jax.Array:
    """Each image resized until its shorter side is S, uniform in `sides`, then cropped at random to (B, *size, C).

    S in [256, 512] for crops of 224 (Simonyan 2015, sec. 3.1), in [256, 480] (He 2015, sec. 3.4). Only the crop is
    computed, so its place is not bound to whole pixels of the resized image.

    Raises:
      UserError: sides[0] is below a side of `size`.
    """
    if sides[0] < max(size):
        raise UserError(f"scale jitter to a shorter side of {sides[0]:g} pixels leaves no crop of {size[0]}x{size[1]}")
    key_side, key_place = jax.random.split(key)
    full = jnp.array(images.shape[1:3])
    side = jax.random.uniform(key_side, (len(images), 1), minval=sides[0], maxval=sides[1])
    crop = jnp.array(size) * full.min() / side
    corner = jax.random.uniform(key_place, crop.shape) * (full - crop)
    return resample(images, jnp.concatenate([corner, crop], 1), size)


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

    (B, H, W, C) -> (B, H, W, C), bilinear. LeCun 1998, sec. III.A: "horizontal and
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
    return sample(images, places)


def elastic(key: jax.Array, images: jax.Array, alpha: float = 34.0, sigma: float = 4.0) -> jax.Array:
    """Moves each pixel of each image by a smooth random field, bilinearly; what comes in is 0.

    Simard 2003, sec. 2: displacements uniform in [-1, 1] are convolved with a Gaussian of `sigma` pixels and
    multiplied by `alpha`; 34 and 4 for its 29x29 digits, where a pixel moves by 1.4 (standard deviation per axis).
    Towards the edges the field fades, as it is 0 outside.
    """
    batch, height, width, _ = images.shape
    noise = jax.random.uniform(key, (batch, 2, height, width), minval=-1.0, maxval=1.0)
    rows, columns = gaussian(height, sigma), gaussian(width, sigma)
    field = alpha * jnp.einsum("ih,bnhw,jw->bnij", rows, noise, columns, precision=jax.lax.Precision.HIGHEST)
    return sample(images, jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")) + field)


def gaussian(side: int, sigma: float) -> jax.Array:
    """(side, side) float32: the matrix that smooths a line of pixels, black outside, by a Gaussian of `sigma`."""
    place = jnp.arange(side)
    bell = jnp.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    return bell / (sigma * jnp.sqrt(2 * jnp.pi))


def sample(images: jax.Array, places: jax.Array) -> jax.Array:
    """Reads (B, H, W, C) images at `places` (B, 2, H', W'), rows and columns, bilinearly: (B, H', W', C)."""

    def one(image: jax.Array, place: jax.Array) -> jax.Array:
        by_channel = jax.vmap(lambda channel: map_coordinates(channel, list(place), order=1), -1, -1)
        return by_channel(image.astype(jnp.float32))

    return jax.vmap(one)(images, places).astype(jnp.result_type(images, 0.0))
