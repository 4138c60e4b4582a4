"""Activations by name: backbones for detection, segmentation, captioning, visualisation."""

from collections.abc import Iterable, Mapping

import flax.linen as nn
import jax

from cnn_jax.errors import UserError, did_you_mean


def extract_features(
    model: nn.Module, variables: Mapping, images: jax.Array, names: str | Iterable[str] | None = None
) -> dict[str, jax.Array]:
    """Activations inside a network in evaluation, by name, in the compute type of the network.

    `names`, or a single one, are taps, as `model_info(name).features` lists them with channels and stride, or paths
    of layers such as "stage2_block1/conv1" (the output of that submodule); all taps if None.
    Maps are (B, H, W, C), vectors (B, C). Pure: jit it with `model` and `names` static; what is
    not asked for, XLA leaves out, the classifier included. Auxiliary heads are not computed.

    Raises:
      UserError: no such tap or layer; the message names the nearest.
    """
    wanted = [names] if isinstance(names, str) else None if names is None else list(names)

    def asked(module: nn.Module, method: str) -> bool:
        return wanted is not None and method == "__call__" and "/".join(module.path) in wanted

    _, state = model.apply(variables, images, train=False, mutable=["intermediates"], capture_intermediates=asked)
    found = dict(state["intermediates"])
    taps = found.pop("taps", {})
    inner = {
        "/".join(str(key.key) for key in path[:-2]): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found)
    }
    if wanted is None:
        return dict(taps)
    everything = inner | taps
    for name in wanted:
        if name not in everything:
            layers = [layer for layer in _layers(variables["params"]) if not layer.startswith("aux")]
            raise UserError(did_you_mean("feature", str(name), [*taps, *layers]))
    return {name: everything[name] for name in wanted}


def _layers(params: Mapping, prefix: str = "") -> list[str]:
    """The paths of all submodules that own parameters."""
    paths = []
    for name, value in params.items():
        if isinstance(value, Mapping):
            paths += [prefix + name, *_layers(value, f"{prefix}{name}/")]
    return paths
