"""What happens to colours: AlexNet's and Inception's distortions."""

from functools import partial

import jax
import jax.numpy as jnp

from cnn_jax.data.augment.each import each
from cnn_jax.errors import UserError

# Principal components of ImageNet's colours. Krizhevsky 2012 gives no numbers; these are those of cuda-convnet's data
# (eigenvalues 55.46, 4.794, 1.148 of pixels in [0, 255]) as fb.resnet.torch's datasets/imagenet.lua has them, for
# pixels in [0, 1]. A column is an eigenvector, (red, green, blue).
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def pca_color(key: jax.Array, images: jax.Array, std: float = 0.1) -> jax.Array:
    """Adds to each pixel of an image p (alpha * lambda), alpha ~ N(0, std) once an image and component.

    Krizhevsky 2012, sec. 4.1, with its standard deviation 0.1: about 3 of 255 per channel. As there, nothing is cut
    off at 0 or 255.

    Raises:
      UserError: the images have no three channels.
    """
    if images.shape[-1] != 3:
        raise UserError(f"PCA colour needs images of 3 channels, not {images.shape[-1]}")
    alpha = std * jax.random.normal(key, (len(images), 3))
    shift = 255 * jnp.sum(jnp.array(EIGENVECTORS) * (alpha * jnp.array(EIGENVALUES))[:, None], -1)
    return (images.astype(jnp.float32) + shift[:, None, None]).astype(jnp.result_type(images, 0.0))


# Inception's distortions, as TensorFlow's slim/preprocessing/inception_preprocessing.py, `distort_color`, has them.
AMOUNTS = {"brightness": (-32.0, 32.0), "saturation": (0.5, 1.5), "hue": (-0.2, 0.2), "contrast": (0.5, 1.5)}
ORDERS = (
    ("brightness", "saturation", "hue", "contrast"),
    ("saturation", "brightness", "contrast", "hue"),
    ("contrast", "hue", "brightness", "saturation"),
    ("hue", "saturation", "contrast", "brightness"),
)


def color_distortion(key: jax.Array, images: jax.Array) -> jax.Array:
    """Inception's photometric distortions: brightness, saturation, hue and contrast in one of four orders.

    Szegedy 2014 (1409.4842), sec. 6, takes them from Howard 2013; the amounts and orders are those of the authors'
    code (`AMOUNTS`, `ORDERS`). There each thread has its order, here each image draws one. Grey images (C = 1) have
    neither hue nor saturation, so only their brightness and contrast change.

    Raises:
      UserError: the images have neither one nor three channels.
    """
    channels = images.shape[-1]
    if channels not in (1, 3):
        raise UserError(f"colour distortion needs images of 1 or 3 channels, not {channels}")
    key_order, *keys = jax.random.split(key, 1 + len(AMOUNTS))
    amounts = {
        name: jax.random.uniform(k, (len(images),), minval=low, maxval=high)
        for k, (name, (low, high)) in zip(keys, AMOUNTS.items(), strict=True)
    }

    def distort(order: tuple[str, ...], image: jax.Array, amounts: dict[str, jax.Array]) -> jax.Array:
        for name in order:
            if channels == 3 or name in ("brightness", "contrast"):
                image = STEPS[name](image, amounts[name])
        return image

    order = jax.random.randint(key_order, (len(images),), 0, len(ORDERS))
    choose = lambda i, *args: jax.lax.switch(i, [partial(distort, order) for order in ORDERS], *args)  # noqa: E731
    distorted = each(choose, order, images.astype(jnp.float32), amounts)
    return jnp.clip(distorted, 0, 255).astype(jnp.result_type(images, 0.0))


def brightness(image: jax.Array, amount: jax.Array) -> jax.Array:
    """Adds `amount`."""
    return image + amount


def saturation(image: jax.Array, amount: jax.Array) -> jax.Array:
    """Multiplies HSV's saturation by `amount` and cuts it off at 1: (H, W, 3) -> (H, W, 3)."""
    value = image.max(-1, keepdims=True)
    chroma = value - image.min(-1, keepdims=True)
    wanted = jnp.minimum(amount * chroma, jnp.maximum(value, 0))
    return value - (value - image) * wanted / jnp.where(chroma == 0, 1, chroma)


def hue(image: jax.Array, amount: jax.Array) -> jax.Array:
    """Turns HSV's hue by `amount` of a full circle: (H, W, 3) -> (H, W, 3)."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = image.max(-1)
    chroma = value - image.min(-1)
    divisor = jnp.where(chroma == 0, 1, chroma)
    sixths = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    # Each channel is a trapezium over the circle: 0 to 1 in a sixth, 1 for two, down in one, 0 for two.
    turned = sixths[..., None] + 6 * amount + jnp.array([5.0, 3.0, 1.0])
    turned -= 6 * jnp.floor(turned / 6)  # % is not vectorised on a CPU
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(turned, 4 - turned), 0, 1)


def contrast(image: jax.Array, amount: jax.Array) -> jax.Array:
    """Multiplies each channel's distance from its mean by `amount`."""
    mean = image.mean((0, 1))
    return mean + amount * (image - mean)


STEPS = {"brightness": brightness, "saturation": saturation, "hue": hue, "contrast": contrast}
