"""What attributions are of: the logit of a class for each image, and the activations of a layer on the way to it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError
from cnn_jax.layers import perturbed
from cnn_jax.models.features import extract_features
from cnn_jax.models.structure import structure

Target = int | np.ndarray | jax.Array | None


@partial(jax.jit, static_argnames="model")
def logits(model: nn.Module, variables: Mapping, images: jax.Array) -> Any:
    """(B, classes) float32 in evaluation."""
    return model.apply(variables, images, train=False)


@partial(jax.jit, static_argnames=("model", "layer"))
def activation(model: nn.Module, variables: Mapping, images: jax.Array, layer: str) -> jax.Array:
    """(B, h, w, C) or (B, C) float32 of a tap or a layer's path, see extract_features."""
    return extract_features(model, variables, images, layer)[layer].astype(jnp.float32)


def targets(model: nn.Module, variables: Mapping, images: jax.Array, target: Target) -> jax.Array:
    """(B,) numbers of classes: `target` for all images or for each, or what the network takes each for if None.

    Raises:
      UserError: the network has no classes, or not this one (unless it lies on a device); more or fewer targets than
        images.
    """
    classes = getattr(model, "num_classes", None)
    if classes == 0:
        raise UserError("the network has no classes to explain: num_classes=0 gives features")
    if target is None:
        return logits(model, variables, images).argmax(-1)
    numbers = jnp.asarray(target)
    if numbers.shape not in ((), images.shape[:1]) or not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise UserError(f"a target is the number of a class, or {len(images)} of them, one for each image")
    known = [] if isinstance(target, jax.Array) else np.ravel(target).tolist()
    if classes is not None and (wrong := [number for number in known if not 0 <= number < classes]):
        raise UserError(f"a target must be at least 0 and below {classes}, not {wrong[0]}")
    return jnp.broadcast_to(numbers, images.shape[:1])


def of_targets(values: jax.Array, numbers: jax.Array) -> jax.Array:
    """(B,): of each row of (B, classes) the value of its class."""
    return jnp.take_along_axis(values, numbers[:, None], axis=1)[:, 0]


def last_map(model: nn.Module, images: jax.Array) -> str:
    """The last tap that is a map of more than one position: what Grad-CAM looks at unless told otherwise.

    Raises:
      UserError: the network has none.
    """
    maps = [name for name, shape in structure(model, images.shape[1:]).taps.items() if np.prod(shape[:-1]) > 1]
    if not maps:
        raise UserError(f"{type(model).__name__} has no map for images of {images.shape[1]}x{images.shape[2]} pixels")
    return maps[-1]


def on_the_way(
    model: nn.Module, variables: Mapping, images: jax.Array, layer: str
) -> tuple[jax.Array, jax.Array, Callable]:
    """Logits (B, classes), the activation of a layer, (B, h, w, C), and the function from logits' to its cotangent.

    `layer` is a tap or the path of a layer, as for extract_features. Zeros are added to it, and what the gradient by
    these is, is the gradient by the activation: (B, h, w, C).

    Raises:
      UserError: no such layer, or one that gives vectors.
    """
    asked = partial(extract_features, model, variables, names=layer)
    there = jax.eval_shape(asked, images)[layer]
    if len(there.shape) != 4:
        raise UserError(f"{layer} of {type(model).__name__} gives vectors, which have no places in the image")
    zeros = jnp.zeros(there.shape, there.dtype)
    is_tap = layer in structure(model, images.shape[1:]).taps

    def run(added: jax.Array) -> tuple[jax.Array, jax.Array]:
        def with_zeros(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
            output = call(*args, **kwargs)
            here = context.method_name == "__call__" and "/".join(context.module.path) == layer
            return output + added if here and not is_tap else output

        def wanted(module: nn.Module, method: str) -> bool:
            return not is_tap and method == "__call__" and "/".join(module.path) == layer

        with perturbed({layer: added}), nn.intercept_methods(with_zeros):
            output, state = model.apply(
                variables, images, train=False, mutable=["intermediates"], capture_intermediates=wanted
            )
        found = state["intermediates"]
        for part in ("taps", layer) if is_tap else (*layer.split("/"), "__call__"):
            found = found[part]
        return output, found if is_tap else found[0]

    output, back, activation = jax.vjp(run, zeros, has_aux=True)
    return output, activation, lambda cotangent: back(cotangent)[0]
