"""Batch norm folded into the layer before it, for inference."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from cnn_jax.compilation import jit_once
from cnn_jax.errors import UserError
from cnn_jax.layers import BatchNorm, Conv

IMAGE = (1, 299, 299, 3)  # what reads what does not depend on it; Inception's stem shrinks smaller ones to nothing


def fold_batch_norm(model: nn.Module, variables: Mapping) -> tuple[nn.Module, dict]:
    """A network for evaluation alone, with its batch norms in the convolution or linear layer before them.

    (model, variables), of create_model and a checkpoint, -> (model, variables) with the same logits and taps
    within float32 rounding, and of the same use: `apply(variables, images, train=False)`, extract_features, jit.
    A norm that alone reads the output of a convolution or linear layer (a tap would be a second reader) leaves its
    gain in that layer's `kernel` and `bias` and keeps its shift, as its own `bias`. Each other norm, such as one before
    a convolution of DenseNet, keeps both, worked out from its statistics: `scale` and `bias`. So no `batch_stats` are
    left. Parameters are float32 and folded in float32, whatever the compute type. A network without batch norm comes
    back as it is. Pure: it may stand inside jit, with `model` static.

    Raises:
      UserError: a network that has batch norms but no field `norm`, which makes them; in `apply`, train=True.
    """
    if not variables.get("batch_stats"):
        return model, dict(variables)
    norms = _norms(model)
    if not hasattr(model, "norm"):
        raise UserError(f"{type(model).__name__} has batch norms, but no field `norm` that says how they are made")
    folded = tuple(norm for norm, (_, layer) in norms.items() if layer is not None)
    return model.clone(norm=partial(model.norm, folded=folded)), jit_once(partial(_fold, norms=norms))(variables)


def _norms(model: nn.Module) -> dict[str, tuple[float, str | None]]:
    """The path of each batch norm -> its epsilon, and the path of the layer that it can be folded into, if any.

    Told by the program itself: abstract evaluation of `init`, in which layers' outputs and norms' inputs are marked.
    """
    epsilons: dict[str, float] = {}

    def mark(call, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, BatchNorm | Conv | nn.Dense):
            return call(*args, **kwargs)
        path = "/".join(module.path)
        if not isinstance(module, BatchNorm):
            return checkpoint_name(call(*args, **kwargs), f"layer {path}")
        epsilons[path] = module.epsilon
        return call(checkpoint_name(args[0], f"norm {path}"), *args[1:], **kwargs)

    def run():
        with nn.intercept_methods(mark):
            return model.init_with_output(jax.random.key(0), jnp.zeros(IMAGE), train=False, mutable=True)

    marks = list(_marks(jax.make_jaxpr(run)().jaxpr))
    times = Counter(mark for mark, _ in marks)
    layers = {
        mark: before.removeprefix("layer ")
        for mark, before in marks
        if before is not None and times[mark] == times[before] == 1  # a layer that is called once, for this norm
    }
    return {path: (epsilon, layers.get(f"norm {path}")) for path, epsilon in epsilons.items()}


def _marks(jaxpr: Any) -> Iterator[tuple[str, str | None]]:
    """Each mark in a program, and for a norm's the layer's mark whose value it alone reads."""
    reads = Counter(var for eqn in jaxpr.eqns for var in eqn.invars if not hasattr(var, "val"))
    reads.update(var for var in jaxpr.outvars if not hasattr(var, "val"))
    made: dict[Any, str] = {}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "name":
            mark, read = eqn.params["name"], eqn.invars[0]
            made[eqn.outvars[0]] = mark
            alone = mark.startswith("norm ") and reads[read] == 1
            yield mark, made.get(read) if alone else None
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda value: hasattr(value, "eqns")):
            if hasattr(inner, "eqns"):
                yield from _marks(getattr(inner, "jaxpr", inner))


def _fold(variables: Mapping, norms: dict[str, tuple[float, str | None]]) -> dict:
    params, stats = flatten_dict(variables["params"], sep="/"), flatten_dict(variables["batch_stats"], sep="/")
    for norm, (epsilon, layer) in norms.items():
        if f"{norm}/scale" not in params:
            continue  # an auxiliary head's; weights may lack them
        gain = params.pop(f"{norm}/scale") * lax.rsqrt(stats[f"{norm}/var"] + epsilon)
        params[f"{norm}/bias"] = params[f"{norm}/bias"] - stats[f"{norm}/mean"] * gain
        if layer is None:
            params[f"{norm}/scale"] = gain
            continue
        for name in (f"{layer}/kernel", f"{layer}/bias"):
            if name in params:
                blocks, axes = gain.shape[:-1], params[name].ndim - gain.ndim  # an axis of blocks, if they are scanned
                params[name] = params[name] * gain.reshape(*blocks, *(1,) * axes, -1)
    rest = {kind: values for kind, values in variables.items() if kind != "batch_stats"}
    return rest | {"params": unflatten_dict(params, sep="/")}
