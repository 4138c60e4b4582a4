"""Shapes, parameters and multiply-accumulates of a network by abstract evaluation: no weights, no arithmetic."""

import math
from dataclasses import dataclass, fields
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.tracers import current_trace

Shape = tuple[int, ...]
WEIGHTS = {"params", "batch_stats"}


@dataclass(frozen=True)
class Layer:
    """A layer that owns parameters or statistics, at one image.

    `shape` is that of its output (H, W, C) or (C,); `macs` are multiply-accumulates of
    convolutions and linear layers, zero for others.
    """

    path: str
    kind: str
    shape: Shape
    params: int
    macs: int

    @property
    def values(self) -> int:
        """Numbers in the output."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Structure:
    """What abstract evaluation of `init` tells: layers and taps in the order of the network."""

    layers: tuple[Layer, ...]
    taps: dict[str, Shape]
    variables: dict
    output: Shape

    @property
    def params(self) -> int:
        """Trainable parameters, auxiliary heads included."""
        return sum(layer.params for layer in self.layers)

    @property
    def aux_params(self) -> int:
        """Those of the auxiliary heads."""
        return sum(layer.params for layer in self.layers if layer.path.startswith("aux"))

    @property
    def macs(self) -> int:
        """Multiply-accumulates in evaluation for one image, so without auxiliary heads."""
        return sum(layer.macs for layer in self.layers if not layer.path.startswith("aux"))


def structure(model: nn.Module, image: Shape) -> Structure:
    """Evaluates `model.init` abstractly on one image (H, W, C).

    Shapes of taps and outputs are without the batch axis; `variables` are jax.ShapeDtypeStruct.
    """
    layers, names = [], []
    seen: dict[tuple, tuple] = {}  # layers without parts: by all that decides their shapes, what they made

    def evaluate(call, args, kwargs, context):
        """The call, or what an equal layer made of such an input: deep networks repeat a few layers."""
        module = context.module
        if context.method_name != "__call__" or len(args) != 1 or not isinstance(args[0], jax.Array):
            return call(*args, **kwargs)
        options = [getattr(module, field.name) for field in fields(module) if field.name not in ("parent", "name")]
        if any(isinstance(option, nn.Module) for option in options):  # a head around a backbone
            return call(*args, **kwargs)
        key = (type(module), *options, args[0].shape, args[0].dtype, *sorted(kwargs.items()))
        where = current_trace()  # an abstract value of a rematerialised block is none outside it
        if key in seen and seen[key][0] == where:
            _, own, output = seen[key]
            for (collection, name), value in own.items():
                module.put_variable(collection, name, value)
            return output
        output = call(*args, **kwargs)
        own = {(kind, name): value for kind, values in module.variables.items() for name, value in values.items()}
        if own and all(kind in WEIGHTS and hasattr(value, "shape") for (kind, _), value in own.items()):
            seen[key] = where, own, output
        return output

    def record(call, args, kwargs, context):
        output = evaluate(call, args, kwargs, context)
        own = context.module.variables.get("params", {}) if context.method_name == "__call__" else {}
        sizes = {name: leaf.size for name, leaf in own.items() if hasattr(leaf, "size")}
        if sizes:
            shape = output.shape[1:] if isinstance(output, jax.Array) else ()  # an LSTM's kernels give themselves
            layers.append(
                Layer(
                    "/".join(context.module.path),
                    type(context.module).__name__,
                    shape,
                    sum(sizes.values()),
                    sizes.get("kernel", 0) * math.prod(shape[:-1]),
                )
            )
        return output

    def run():
        with nn.intercept_methods(record):
            output, state = model.init_with_output(jax.random.key(0), jnp.zeros((1, *image)), train=False, mutable=True)
        variables: dict[str, Any] = {**state}
        taps = variables.pop("intermediates", {}).get("taps", {})
        names.extend(taps)  # a dict comes out of eval_shape with its keys sorted
        return output, variables, [taps[name] for name in taps]

    output, variables, taps = jax.eval_shape(run)
    shapes = {name: tap.shape[1:] for name, tap in zip(names, taps, strict=True)}
    return Structure(tuple(layers), shapes, variables, output.shape[1:])
