"""Class activation maps: where in a layer's map a class is, brought to the size of the image.

Names and values are pytorch-grad-cam's, but for what it does last, the scaling to [0, 1]. Images, `target` and maps are
those of visualize.gradients; `layer` is a tap or a layer's path, as for extract_features, the last map if None.
"""

from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.visualize.scores import Target, last_map, on_the_way, targets

Weigh = Callable[[jax.Array, jax.Array], jax.Array]  # activation and gradient (B, h, w, C) -> weights, to be broadcast


def gradcam(
    model: nn.Module, variables: Mapping, images: jax.Array, target: Target = None, *, layer: str | None = None
) -> jax.Array:
    """Grad-CAM (Selvaraju 1610.02391, eq. 1 and 2): channels weighed by their mean gradient, rectified. (B, H, W) >= 0.

    Raises:
      UserError: no such layer, or one without places; see targets.
    """
    return _cam(_mean_gradient, model, variables, images, target, layer)


def gradcam_plus_plus(
    model: nn.Module, variables: Mapping, images: jax.Array, target: Target = None, *, layer: str | None = None
) -> jax.Array:
    """Grad-CAM++ (Chattopadhay 1710.11063, eq. 10, 11 and 19), which finds several objects of a class. (B, H, W) >= 0.

    The score is exp of the logit, as there, whose factor common to all positions is left out.

    Raises:
      UserError: as gradcam.
    """
    return _cam(_plus_plus, model, variables, images, target, layer)


def layercam(
    model: nn.Module, variables: Mapping, images: jax.Array, target: Target = None, *, layer: str | None = None
) -> jax.Array:
    """Layer-CAM (Jiang 2021, IEEE TIP 30, eq. 6 to 8): each position weighed by its own gradient where that is above 0.

    So that early layers, whose maps are fine, show something too. (B, H, W) >= 0.

    Raises:
      UserError: as gradcam.
    """
    return _cam(_own_gradient, model, variables, images, target, layer)


def _mean_gradient(activation: jax.Array, gradient: jax.Array) -> jax.Array:
    return gradient.mean((1, 2), keepdims=True)


def _own_gradient(activation: jax.Array, gradient: jax.Array) -> jax.Array:
    return jnp.maximum(gradient, 0)


def _plus_plus(activation: jax.Array, gradient: jax.Array) -> jax.Array:
    """Eq. 19 divided by the gradient's square: g^2 / (2 g^2 + sum(A) g^3), of which nothing counts where g is below 0.

    The sum of a rectified map is never below 0; that of another counts as 0 then, where the paper's could divide by 0.
    """
    total = jnp.maximum(activation.sum((1, 2), keepdims=True), 0)
    above = jnp.maximum(gradient, 0)
    return (above / (2 + total * above)).sum((1, 2), keepdims=True)


def _cam(
    weigh: Weigh, model: nn.Module, variables: Mapping, images: jax.Array, target: Target, layer: str | None
) -> jax.Array:
    numbers = targets(model, variables, images, target)
    return _compiled(weigh, model, variables, images, numbers, layer or last_map(model, images))


@partial(jax.jit, static_argnames=("weigh", "model", "layer"))
def _compiled(
    weigh: Weigh, model: nn.Module, variables: Mapping, images: jax.Array, numbers: jax.Array, layer: str
) -> jax.Array:
    logits, activation, back = on_the_way(model, variables, images, layer)
    gradient = back(jax.nn.one_hot(numbers, logits.shape[-1], dtype=logits.dtype))
    activation, gradient = activation.astype(jnp.float32), gradient.astype(jnp.float32)
    weighed = jnp.maximum((weigh(activation, gradient) * activation).sum(-1), 0)
    return jax.image.resize(weighed, images.shape[:3], "bilinear")
