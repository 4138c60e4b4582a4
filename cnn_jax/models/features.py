"""Activations by name: backbones for detection, segmentation, captioning, visualisation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.models.structure import structure

MORE = 64  # pixels; a multiple of every stride


def extract_features(
    model: nn.Module,
    variables: Mapping,
    images: jax.Array,
    names: str | Iterable[str] | None = None,
    *,
    strides: Sequence[int] | None = None,
    train: bool = False,
    mutable: Sequence[str] = (),
    rngs: dict[str, jax.Array] | None = None,
) -> Any:
    """Activations inside a network, by name, in the compute type of the network.

    `names`, or a single one, are taps, as `model_info(name).features` lists them with channels and stride, or paths
    of layers such as "stage2_block1/conv1" (the output of that submodule); all taps if None. Or `strides`, such as
    (4, 8, 16, 32): for each, in this order, the last tap with so many pixels of the image to a position, as detectors
    take them. Maps are (B, H, W, C), vectors (B, C). Pure: jit it with `model`, `names` and `strides` static; what is
    not asked for, XLA leaves out, the classifier included.

    `train`, `mutable` and `rngs` are those of `model.apply`, to train a backbone through it: with
    `train=True, mutable=["batch_stats"]` it returns (features, {"batch_stats": moved}), else the features alone.
    What goes on behind an activation, `model.apply(variables, map, train=False, method="forward_head")` says for the
    last map.

    Raises:
      UserError: no such tap or layer, the message names the nearest; no tap of such a stride; both names and strides.
    """
    if names is not None and strides is not None:
        raise UserError("extract_features takes names or strides, not both")
    wanted = [names] if isinstance(names, str) else None if names is None else list(names)

    def asked(module: nn.Module, method: str) -> bool:
        return wanted is not None and method == "__call__" and "/".join(module.path) in wanted

    collections = ["intermediates", *mutable]
    _, state = model.apply(variables, images, train=train, rngs=rngs, mutable=collections, capture_intermediates=asked)
    moved = dict(state)
    found = dict(moved.pop("intermediates"))
    taps = found.pop("taps", {})
    inner = {
        "/".join(str(key.key) for key in path[:-2]): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found)
    }
    if strides is not None:
        wanted = _of_strides(model, taps, images, strides)
    elif wanted is None:
        wanted = list(taps)
    everything = inner | taps
    for name in wanted:
        if name not in everything:
            layers = [layer for layer in _layers(variables["params"]) if not layer.startswith("aux")]
            raise UserError(did_you_mean("feature", str(name), [*taps, *layers]))
    features = {name: everything[name] for name in wanted}
    return (features, moved) if mutable else features


def _of_strides(model: nn.Module, taps: Mapping, images: jax.Array, strides: Sequence[int]) -> list[str]:
    """The last tap of each stride, told by how many rows it grows with the image: padding, or none, blurs ratios."""
    _, height, width, channels = images.shape
    larger = structure(model, (height + MORE, width, channels)).taps
    rows = {name: larger[name][0] - x.shape[1] for name, x in taps.items() if x.ndim == 4}
    last = {MORE // more: name for name, more in rows.items() if more}
    if missing := [stride for stride in strides if stride not in last]:
        there = ", ".join(map(str, sorted(last)))
        raise UserError(f"{type(model).__name__} has no map of stride {missing[0]}; its strides are {there}")
    return [last[stride] for stride in strides]


def _layers(params: Mapping, prefix: str = "") -> list[str]:
    """The paths of all submodules that own parameters."""
    paths = []
    for name, value in params.items():
        if isinstance(value, Mapping):
            paths += [prefix + name, *_layers(value, f"{prefix}{name}/")]
    return paths
