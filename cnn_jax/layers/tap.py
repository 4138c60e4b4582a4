"""Names for activations."""

import operator
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import flax.linen as nn
import jax

_TAKEN: ContextVar[dict[str, jax.Array] | None] = ContextVar("taken", default=None)
_ADDED: ContextVar[Mapping[str, jax.Array] | None] = ContextVar("added", default=None)


def tap(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """Returns `x` and offers it as `name` to whoever asks for intermediates.

    `model.apply(variables, images, train=False, mutable=["intermediates"])` gives
    (logits, {"intermediates": {"taps": {name: x, ...}}}). Without `mutable` it costs nothing: no
    copy is kept and XLA sees no trace of it. A tap may bear the name of a layer.
    """
    if (added := _ADDED.get()) is not None and name in added:
        x = x + added[name]
    if (taps := _TAKEN.get()) is not None:
        taps[name] = x
    module.sow("intermediates", "taps", {name: x}, init_fn=dict, reduce_fn=operator.or_)
    return x


@contextmanager
def taken() -> Generator[dict[str, jax.Array]]:
    """The taps of the networks that are called inside, by name and in their order, for a module around a backbone.

    `with taken() as taps: pooled = self.backbone(images, train=train)`
    """
    taps: dict[str, jax.Array] = {}
    token = _TAKEN.set(taps)
    try:
        yield taps
    finally:
        _TAKEN.reset(token)


@contextmanager
def perturbed(added: Mapping[str, jax.Array]) -> Generator[None]:
    """Adds arrays to taps of the networks that are called inside, by name: zeros, to differentiate by what they meet.

    `with perturbed({"stage4": zeros}): logits = model.apply(variables, images, train=False)`
    """
    token = _ADDED.set(added)
    try:
        yield
    finally:
        _ADDED.reset(token)


def auxiliary(head: nn.Module, logits: jax.Array) -> jax.Array:
    """Returns the logits (B, num_classes) of an auxiliary head and offers them to whoever asks for "aux_logits".

    `model.apply(variables, images, train=True, mutable=["batch_stats", "aux_logits"], ...)` gives them as
    `["aux_logits"][name of the head]["logits"]`; `init` does not.
    """
    if not head.is_initializing():
        head.sow("aux_logits", "logits", logits, init_fn=lambda: None, reduce_fn=lambda _, new: new)
    return logits
