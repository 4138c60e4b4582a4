"""A network as two pure functions, for those who want no module object."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError

from cnn_jax.compilation import jit_once
from cnn_jax.errors import UserError
from cnn_jax.models import create_model, model_info


class Functional(NamedTuple):
    """`init, apply = functional(...)`; see there."""

    init: Callable
    apply: Callable


def functional(name: str, **options) -> Functional:
    """`create_model(name, **options)` as a pair of pure functions (init, apply).

    `init(key, image_shape=None) -> (params, batch_stats)`: float32 pytrees; `image_shape` is
    (H, W, C), the card's input size if None. `batch_stats` is empty for a network without batch
    norm.

    `apply(params, batch_stats, images, *, train, key=None) -> (logits, batch_stats)`: images
    (B, H, W, C) float, logits (B, num_classes) float32. In training the statistics returned
    have moved, and dropout and stochastic depth draw from `key`; in evaluation they return as they
    came. Auxiliary heads are not returned: use the module with `mutable=["aux_logits"]` for those.

    jit, grad and vmap them freely: `jit(apply, static_argnames="train")`, and
    `vmap(partial(apply, train=True), in_axes=(0, 0, None))` for the parameters of several seeds.

    Raises:
      UserError: no such network or option; in `apply`, training with a rate above 0 and no key.
    """
    model, size = create_model(name, **options), model_info(name).input_size

    def init(key: jax.Array, image_shape: tuple[int, int, int] | None = None) -> tuple[dict, dict]:
        images = jnp.zeros((1, *(image_shape or size)))
        variables = jit_once(lambda k: model.init(k, images, train=False))(key)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: dict, batch_stats: dict, images: jax.Array, *, train: bool, key: jax.Array | None = None
    ) -> tuple[jax.Array, dict]:
        variables = {"params": params, "batch_stats": batch_stats}
        if not train:
            logits: Any = model.apply(variables, images, train=False)
            return logits, batch_stats
        rngs = None if key is None else {"dropout": key}
        try:
            logits, changed = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
        except InvalidRngError as error:
            rates = [rate for rate in ("dropout", "aux_dropout", "stochastic_depth") if getattr(model, rate, None)]
            without = ", ".join(f"{rate}=0.0" for rate in rates)
            raise UserError(
                f"{name} has {', '.join(rates)}: apply(..., train=True) needs key=..., or build it with {without}"
            ) from error
        return logits, changed.get("batch_stats", batch_stats)

    return Functional(init, apply)
