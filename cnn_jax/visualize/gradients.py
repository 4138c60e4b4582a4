"""What a logit owes to each pixel, by gradients: saliency, guided backpropagation, integrated gradients, deconvnet.

Images are (B, H, W, C) float as the network takes them, normalised; `target` is the number of a class, or one for each
image, or None for the class that the network takes each image for. Maps are (B, H, W) float32. Pure; what is inside is
compiled once for a module and the shape of the images.
"""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.models.features import extract_features
from cnn_jax.visualize.rectifiers import Rule, with_rule
from cnn_jax.visualize.scores import Target, of_targets, targets


def input_gradient(
    model: nn.Module, variables: Mapping, images: jax.Array, target: Target = None, *, rule: Rule = "gradient"
) -> jax.Array:
    """The gradient of the class's logit by the pixels, (B, H, W, C) float32, with the ReLUs' `rule`, see with_rule.

    "gradient" is Captum's Saliency with abs=False, "guided" its GuidedBackprop, "deconvnet" its Deconvolution.

    Raises:
      UserError: see targets.
    """
    return _gradient(model, variables, images, targets(model, variables, images, target), rule)


def saliency(model: nn.Module, variables: Mapping, images: jax.Array, target: Target = None) -> jax.Array:
    """The largest absolute gradient of a pixel's channels (Simonyan 1312.6034, sec. 3.1), (B, H, W).

    Raises:
      UserError: see targets.
    """
    return _strongest(input_gradient(model, variables, images, target))


def guided_backprop(model: nn.Module, variables: Mapping, images: jax.Array, target: Target = None) -> jax.Array:
    """As saliency, but ReLUs let nothing below 0 come back (Springenberg 1412.6806, sec. 3.4), (B, H, W).

    It shows edges whatever the weights behind the first layers are (Adebayo 1810.03292): a picture of the image more
    than of the network. `input_gradient(..., rule="guided")` has the colours.

    Raises:
      UserError: see targets.
    """
    return _strongest(input_gradient(model, variables, images, target, rule="guided"))


def integrated_gradients(
    model: nn.Module,
    variables: Mapping,
    images: jax.Array,
    target: Target = None,
    *,
    baseline: float | jax.Array = 0.0,
    steps: int = 50,
) -> jax.Array:
    """The gradient's mean on the way from a baseline, times that way (Sundararajan 1703.01365, eq. 1), (B, H, W).

    The channels are summed, so a map sums to the logit less the baseline's, up to the error of the integral, which is
    Gauss' and Legendre's in `steps` points, as Captum's. The baseline is what normalisation makes 0, the mean colour;
    another value, image (H, W, C) or images. Not to be jitted as a whole: it computes point by point.

    Raises:
      UserError: fewer than one step; see targets.
    """
    if steps < 1:
        raise UserError(f"steps must be a positive whole number, not {steps}")
    numbers, way = targets(model, variables, images, target), images - baseline
    places, weights = np.polynomial.legendre.leggauss(steps)  # of [-1, 1]
    total = jnp.zeros(images.shape, jnp.float32)
    for place, weight in zip((1 + places) / 2, weights / 2, strict=True):
        here = (baseline + np.float32(place) * way).astype(images.dtype)
        total += np.float32(weight) * _gradient(model, variables, here, numbers, "gradient")
    return (way * total).sum(-1).astype(jnp.float32)


def deconvnet(
    model: nn.Module,
    variables: Mapping,
    images: jax.Array,
    layer: str,
    channel: int | np.ndarray | None = None,
) -> jax.Array:
    """What in an image one activation answers to: its projection down to the pixels, (B, H, W, C) float32.

    Zeiler & Fergus 1311.2901, sec. 2.1: all activations of a layer but one are set to zero; unpooled by the maxima
    that are remembered from the image, rectified, and convolved with the transposed filters, this comes down to pixels.
    The one is the largest of `channel`, one for all images or (B,), or of the whole layer, which may give vectors.
    What is no pool, ReLU or convolution, such as a norm, passes its gradient; biases take no part. `layer` is a tap or
    a layer's path, as for extract_features.

    Raises:
      UserError: no such layer or channel.
    """
    if channel is not None:
        there = jax.eval_shape(partial(extract_features, model, variables, names=layer), images)[layer].shape[-1]
        if wrong := [number for number in np.ravel(channel).tolist() if not 0 <= number < there]:
            raise UserError(f"{layer} has channels 0 to {there - 1}, not {wrong[0]}")
        channel = np.broadcast_to(channel, len(images))
    return _projection(model, variables, images, layer, channel)


def _strongest(gradient: jax.Array) -> jax.Array:
    return jnp.abs(gradient).max(-1)


@partial(jax.jit, static_argnames=("model", "rule"))
def _gradient(model: nn.Module, variables: Mapping, images: jax.Array, numbers: jax.Array, rule: Rule) -> jax.Array:
    network = with_rule(lambda x: model.apply(variables, x, train=False), rule)
    return jax.grad(lambda x: of_targets(network(x), numbers).sum())(images).astype(jnp.float32)


@partial(jax.jit, static_argnames=("model", "layer"))
def _projection(
    model: nn.Module, variables: Mapping, images: jax.Array, layer: str, channel: np.ndarray | None
) -> jax.Array:
    network = with_rule(lambda x: extract_features(model, variables, x, layer)[layer], "deconvnet")
    activation, back = jax.vjp(network, images)
    flat = activation.reshape(len(images), -1)
    place = jnp.arange(flat.shape[1])
    considered = True if channel is None else place % activation.shape[-1] == channel[:, None]
    one = jnp.where(considered, flat, -jnp.inf).argmax(-1)  # the first of equal ones
    alone = jnp.where(place == one[:, None], flat, 0)
    return back(alone.reshape(activation.shape))[0].astype(jnp.float32)
