"""JAX primitives that each platform computes in its own way, and the switch between the ways."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from cnn_jax.errors import UserError, did_you_mean

Lowering = Literal["auto", "jax", "xla"]

_CHOSEN: ContextVar[Lowering] = ContextVar("lowering", default="auto")


@contextlib.contextmanager
def lowering(kind: Lowering) -> Generator[None]:
    """How convolutions, max pools and batch norms are computed that are traced inside: `with lowering("xla"): ...`.

    "auto", the default: on a CPU the measured best for each class of shapes, by oneDNN if the extra
    `onednn` is installed; on a GPU or TPU JAX's own operations. "jax": the same without oneDNN. "xla":
    JAX's own operations everywhere, and no primitive of ours in the jaxpr, for tools that read it (ONNX
    export). A function that jit has traced already keeps what it was traced with.

    Raises:
      UserError: another word.
    """
    if kind not in (words := get_args(Lowering)):
        raise UserError(did_you_mean("lowering", str(kind), words))
    token = _CHOSEN.set(kind)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def chosen() -> Lowering:
    """What holds where this is called."""
    return _CHOSEN.get()


def primitive(
    name: str, plain: Callable, on_cpu: Callable, *, multiple: bool = False, by_image: bool = False
) -> Primitive:
    """A primitive with parameters `native` and those of `plain`, but no derivatives yet.

    `plain(*arrays, **parameters)` is what it computes, by JAX's own operations: so it is on a GPU or TPU,
    under vmap, and its results have the types of these. `on_cpu(avals, *, native, whole, **parameters)`
    gives the function of arrays that computes it on a CPU. `native` allows what layers/native.py has;
    `whole` says that all images lie on one device, or that shard_map divided them, so that a loop over
    images moves nothing between devices. `multiple`: it has a sequence of results. `by_image`: the first array
    and the result have an axis of images first, so that vmap over that array alone is one larger batch.
    """
    made = Primitive(name)
    made.multiple_results = multiple

    @cache
    def compiled(**parameters: Any) -> Callable:
        return jax.jit(partial(made.bind, **parameters))

    @cache
    def types(*avals: Any, **parameters: Any) -> Any:
        found = jax.make_jaxpr(partial(plain, **parameters))(*avals).out_avals
        return found if multiple else found[0]

    def batched(arrays: Sequence, dims: Sequence, *, native: bool, **parameters: Any) -> tuple[Any, Any]:
        if by_image and dims[0] is not None and all(dim is None for dim in dims[1:]):
            images = jnp.moveaxis(arrays[0], dims[0], 0)
            y = made.bind(images.reshape(-1, *images.shape[2:]), *arrays[1:], native=native, **parameters)
            return y.reshape(*images.shape[:2], *y.shape[1:]), 0
        found = jax.vmap(partial(plain, **parameters), dims)(*arrays)
        return found, [0] * len(found) if multiple else 0

    def lowered_on_cpu(ctx: Any, *arrays: Any, native: bool, **parameters: Any) -> Any:
        module = ctx.module_context
        # Where XLA divides the program itself, no library can be called, and nothing may loop over the images.
        whole = getattr(module.axis_context, "num_devices", 1) == 1
        native = native and whole and not module.lowering_parameters.for_export
        form = on_cpu(ctx.avals_in, native=native, whole=whole, **parameters)
        return mlir.lower_fun(form, multiple_results=multiple)(ctx, *arrays)

    def typed(*avals: Any, native: bool, **parameters: Any) -> Any:
        return types(*avals, **parameters)

    def anywhere(*arrays: Any, native: bool, **parameters: Any) -> Any:
        return plain(*arrays, **parameters)

    def alone(*arrays: Any, **parameters: Any) -> Any:
        with jax.disable_jit(False):  # where a user disables it, this would call itself
            return compiled(**parameters)(*arrays)

    made.def_impl(alone)
    made.def_abstract_eval(typed)
    batching.primitive_batchers[made] = batched
    mlir.register_lowering(made, mlir.lower_fun(anywhere, multiple_results=multiple))
    mlir.register_lowering(made, lowered_on_cpu, platform="cpu")
    return made


def vary_alike(*arrays: jax.Array) -> list[jax.Array]:
    """Inside of shard_map: each varies over all axes of the mesh over which any of them does."""
    axes = [_varying(jax.typeof(array)) for array in arrays]
    missing = [tuple(frozenset().union(*axes) - own) for own in axes]
    return [_vary(array, some) if some else array for array, some in zip(arrays, missing, strict=True)]


def _vary(array: jax.Array, axes: tuple) -> jax.Array:
    """jax 0.7 has it by another name."""
    return lax.pcast(array, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(array, axes)


def _varying(aval: Any) -> frozenset:
    """The axes of a mesh; named otherwise before jax 0.11."""
    return aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying
