"""The networks by name."""

import inspect
from fnmatch import fnmatchcase
from functools import partial

import flax.linen as nn

from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.layers import BatchNorm
from cnn_jax.models import (
    alexnet,
    bn_inception,
    densenet,
    dpn,
    googlenet,
    inception,
    inception_resnet,
    inception_v4,
    lenet,
    mnasnet,
    mobilenet,
    mobilenet_v2,
    mobilenet_v3,
    nasnet,
    nin,
    pnasnet,
    preresnet,
    resnet,
    resnet_cifar,
    senet,
    shufflenet,
    squeezenet,
    vgg,
    wrn,
    xception,
    zfnet,
)
from cnn_jax.models.card import ModelInfo
from cnn_jax.models.structure import structure

FAMILIES = (
    lenet,
    alexnet,
    zfnet,
    nin,
    vgg,
    googlenet,
    bn_inception,
    inception,
    inception_v4,
    inception_resnet,
    xception,
    resnet,
    resnet_cifar,
    preresnet,
    wrn,
    densenet,
    squeezenet,
    mobilenet,
    dpn,
    shufflenet,
    nasnet,
    senet,
    pnasnet,
    mobilenet_v2,
    mnasnet,
    mobilenet_v3,
)  # in the order of history
MODELS: dict[str, ModelInfo] = {row.name: row for family in FAMILIES for row in family.VARIANTS}
ALIASES: dict[str, str] = {alias: row.name for row in MODELS.values() for alias in row.aliases}


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names that match a glob such as 'lenet*', or of which an alias does, sorted; empty if there is none.

    `pretrained` lists weights instead, "resnet50.tv_in1k": of the networks that match, or that match themselves.
    """
    names = sorted({ALIASES.get(name, name) for name in (*MODELS, *ALIASES) if fnmatchcase(name, pattern)})
    if not pretrained:
        return names
    tags = [tag for info in MODELS.values() for tag in info.weights]
    return sorted(tag for tag in tags if tag.partition(".")[0] in names or fnmatchcase(tag, pattern))


def model_info(name: str) -> ModelInfo:
    """The card of a network, by its name or an alias: paper, parameters, input size, mean and std.

    Raises:
      UserError: no such network; the message names the nearest.
    """
    known = ALIASES.get(name, name)
    if known not in MODELS:
        raise UserError(did_you_mean("model", name, (*MODELS, *ALIASES)))
    return MODELS[known]


def create_model(name: str, **options) -> nn.Module:
    """Builds a network, (B, H, W, C) float images -> (B, num_classes) float32 logits.

    Every network takes `num_classes` (0 gives the features before the classifier) and `dtype`,
    the compute type; parameters stay float32. Where it makes sense it takes

    - `stem`: "cifar" for images of 28 to 64 pixels;
    - `dropout`: a rate in [0, 1);
    - `stochastic_depth`: a rate in [0, 1), with which an image skips the last residual block in
      training; block l of L has l / L of it (Huang 2016, 1603.09382; see layers.drop_branch);
    - `se_reduction`: 16 adds squeeze-and-excitation as in the paper;
    - `zero_init`: the last batch norm of each residual branch starts with scale 0
      (Goyal 2017, 1706.02677, sec. 5.1);
    - `remat`: activations are computed again in the backward pass, those of all blocks if True, or
      of the blocks that globs name: `("stage1*", "stage2*")`. Names are those of the parameters;
    - `scan`: the equal blocks of a stage run in a loop that is compiled once; their variables have an axis of
      blocks, see stack_blocks. Not for training on a CPU, where convolutions inside a loop are slow;
    - `aux`: auxiliary heads;
    - `global_pool`: "max" or "avgmax", the mean of both, where the last map is averaged; "" keeps it as a map of
      features or, with `num_classes`, of logits;
    - `output_stride`: 16 or 8 pixels of the image to a position of the last map, not 32, by the same weights: the
      last stages dilate instead of halving (see layers.stage_strides);
    - `batch_norm`: a dict of options of layers.BatchNorm that leaves the network's own epsilon
      alone: `{"unbiased": True}`.

    Channels follow the input. `model.apply(variables, map, train=False, method="forward_head")` gives what follows the
    last map that extract_features names. Call it as `model.init(key, images, train=False)` and
    `model.apply(variables, images, train=False)`; training with a rate above 0 needs
    `rngs={"dropout": key}`.

    Raises:
      UserError: no such network, an option that it does not have, a value that is not of the option's type or out of
        its range, a glob of `remat` that names no block or of `frozen` that names no batch norm.
    """
    build = model_info(name).build
    fields = inspect.signature(build).parameters
    offered = [field for field in fields if field not in ("parent", "name")]
    if "norm" in fields and fields["norm"].default is not None:
        offered.append("batch_norm")
    for option in options:
        if option not in offered:
            raise UserError(did_you_mean(f"option of {name}", option, offered))
    if "shortcut" in fields and options.get("shortcut", fields["shortcut"].default) == "none":
        for option in ("stochastic_depth", "zero_init"):
            if options.get(option):
                raise UserError(f"{option} needs shortcuts around the blocks, and this {name} has none")
    frozen: tuple[str, ...] = ()
    if "batch_norm" in options:
        norm = partial(options.get("norm", fields["norm"].default), **_batch_norm(options.pop("batch_norm")))
        options["norm"], frozen = norm, norm().frozen  # made once, for its options to be checked
    model = build(**options)
    remat = getattr(model, "remat", False)
    _check_globs(name, model, remat if isinstance(remat, tuple) else (), frozen)
    return model


def _check_globs(name: str, model: nn.Module, remat: tuple[str, ...], frozen: tuple[str, ...]) -> None:
    """Raises a UserError for a glob that names no block, or no batch norm.

    Abstract evaluation lists them: 0.3 s for ResNet-50.
    """
    if {*remat, *frozen} <= {"*"}:
        return
    blocks: list[str] = []
    probe = model.clone(remat=blocks.append) if remat else model  # asked about every block, says no
    layers = structure(probe, model_info(name).input_size).layers
    norms = [layer.path for layer in layers if layer.kind == "BatchNorm"]
    for option, kind, globs, names in (("remat", "block", remat, blocks), ("frozen", "batch norm", frozen, norms)):
        for glob in globs:
            if not any(fnmatchcase(path, glob) for path in names):
                subtrees = {path.partition("/")[0] + "/*" for path in names if "/" in path}
                raise UserError(f"{option}: {did_you_mean(f'{kind} of {name}', glob, {*names, *subtrees})}")


def _batch_norm(given: dict) -> dict:
    """Options of layers.BatchNorm, all of which it has."""
    if not isinstance(given, dict):
        raise UserError(f"batch_norm must be a dict of options of layers.BatchNorm, not {given!r}")
    offered = [field for field in inspect.signature(BatchNorm).parameters if field not in ("parent", "name", "dtype")]
    for option in given:
        if option not in offered:
            raise UserError(did_you_mean("option of batch_norm", str(option), offered))
    return given
