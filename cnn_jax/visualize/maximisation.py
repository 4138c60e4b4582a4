"""Images that a network makes of a class, and the filters it begins with: what needs no photograph."""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax.errors import UserError
from cnn_jax.models.features import extract_features
from cnn_jax.models.structure import structure

RATE = 0.05  # Adam's, in units of the normalised image's deviation


def activation_maximization(
    model: nn.Module,
    variables: Mapping,
    target: int,
    image: tuple[int, int, int],
    *,
    layer: str | None = None,
    steps: int = 256,
    decay: float = 1e-2,
    jitter: int = 4,
    key: jax.Array | None = None,
) -> jax.Array:
    """An image (H, W, C) float32, as the network takes it, that has the highest logit of a class that can be found.

    From the mean colour by gradient ascent on logit - decay * |image|^2 (Simonyan 1312.6034, eq. 1). With a `layer`,
    a tap or a layer's path, it is the mean of its channel `target` instead (Erhan 2009). Before each step the
    image is rolled by up to `jitter` pixels, drawn from `key` (0 if None), which leaves less of single pixels' noise
    (Mordvintsev 2015). The same arguments give the same image. `image` is (H, W, C).

    Raises:
      UserError: no such layer, or class, or channel of it; steps, a decay or a jitter below 0.
    """
    if min(steps, decay, jitter) < 0:
        raise UserError(f"steps, decay and jitter are numbers of at least 0, not {steps}, {decay:g} and {jitter}")
    there = jax.eval_shape(partial(_values, model, layer), variables, jnp.zeros((1, *image)))
    if not 0 <= target < there.shape[-1]:
        what = "a class" if layer is None else f"a channel of {layer}"
        raise UserError(f"the target must be {what}, at least 0 and below {there.shape[-1]}, not {target}")
    made, keys = jnp.zeros(image), jax.random.key(0) if key is None else key
    state = optax.adam(RATE).init(made)
    for rolled in jax.random.randint(keys, (steps, 2), -jitter, jitter + 1):
        made, state = _ascend(model, layer, variables, made, state, target, decay, rolled)
    return made


def first_filters(model: nn.Module, variables: Mapping, image: tuple[int, int, int] = (224, 224, 3)) -> jax.Array:
    """The kernels of the first convolution, one for each of its channels, (N, h, w, C) float32.

    `image` is the (H, W, C) that the network is for.

    Raises:
      UserError: the first layer is no convolution.
    """
    first = structure(model, image).layers[0].path
    found = variables["params"]
    for name in first.split("/"):
        found = found[name]
    if np.ndim(found.get("kernel")) != 4:
        raise UserError(f"the first layer of {type(model).__name__}, {first}, is no convolution")
    return jnp.moveaxis(jnp.asarray(found["kernel"], jnp.float32), -1, 0)


def _values(model: nn.Module, layer: str | None, variables: Mapping, images: jax.Array) -> jax.Array:
    """(B, classes) logits, or (B, channels) means of a layer."""
    if layer is None:
        return jnp.asarray(model.apply(variables, images, train=False))
    found = extract_features(model, variables, images, layer)[layer]
    return found.mean((1, 2)) if found.ndim == 4 else found


@partial(jax.jit, static_argnames=("model", "layer"))
def _ascend(
    model: nn.Module,
    layer: str | None,
    variables: Mapping,
    image: jax.Array,
    state: optax.OptState,
    target: int,
    decay: float,
    rolled: jax.Array,
) -> tuple[jax.Array, optax.OptState]:
    def lacking(candidate: jax.Array) -> jax.Array:
        seen = jnp.roll(candidate, rolled, (0, 1))
        return decay * jnp.sum(candidate**2) - _values(model, layer, variables, seen[None])[0, target]

    moves, state = optax.adam(RATE).update(jax.grad(lacking)(image), state)
    return image + jnp.asarray(moves), state
