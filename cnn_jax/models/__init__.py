"""The networks by name."""

import inspect
from fnmatch import fnmatchcase
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

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
    mnasnet,
    mobilenet_v3,
)  # in the order of history
MODELS: dict[str, ModelInfo] = {row.name: row for family in FAMILIES for row in family.VARIANTS}


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a glob such as 'lenet*', sorted; empty if none does."""
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def model_info(name: str) -> ModelInfo:
    """The card of a network: paper, parameters, input size, mean and std.

    Raises:
      UserError: no such network; the message names the nearest.
    """
    if name not in MODELS:
        raise UserError(did_you_mean("model", name, MODELS))
    return MODELS[name]


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
    - `batch_norm`: a dict of options of layers.BatchNorm that leaves the network's own epsilon
      alone: `{"unbiased": True}`.

    Channels follow the input. Call it as `model.init(key, images, train=False)` and
    `model.apply(variables, images, train=False)`; training with a rate above 0 needs
    `rngs={"dropout": key}`.

    Raises:
      UserError: no such network, an option that it does not have, a value out of its range, a
        `remat` glob that names no block.
    """
    build = model_info(name).build
    fields = inspect.signature(build).parameters
    offered = [field for field in fields if field not in ("parent", "name")]
    if "norm" in fields and fields["norm"].default is not None:
        offered.append("batch_norm")
    for option in options:
        if option not in offered:
            raise UserError(did_you_mean(f"option of {name}", option, offered))
    classes = options.get("num_classes", 0)
    if not isinstance(classes, int) or classes < 0:
        raise UserError(f"num_classes must be a whole number, 0 for features, not {classes!r}")
    for option in ("dropout", "stochastic_depth"):
        rate = options.get(option, 0.0)
        if not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise UserError(f"{option} must be a rate of at least 0 and below 1, not {rate!r}")
    if "shortcut" in fields and options.get("shortcut", fields["shortcut"].default) == "none":
        for option in ("stochastic_depth", "zero_init"):
            if options.get(option):
                raise UserError(f"{option} needs shortcuts around the blocks, and this {name} has none")
    reduction, remat = options.get("se_reduction"), options.get("remat", False)
    if reduction is not None and (not isinstance(reduction, int) or reduction < 1):
        raise UserError(f"se_reduction must be a whole number such as 16, or None, not {reduction!r}")
    if not isinstance(remat, bool) and not (isinstance(remat, tuple) and all(isinstance(g, str) for g in remat)):
        raise UserError(f'remat must be True, False or a tuple of globs such as ("stage1*",), not {remat!r}')
    if "batch_norm" in options:
        _check_batch_norm(options["batch_norm"])
        norm = options.get("norm", fields["norm"].default)
        options["norm"] = partial(norm, **options.pop("batch_norm"))
    model = build(**options)
    if isinstance(remat, tuple) and any(glob != "*" for glob in remat):
        _check_globs(model, remat, name)
    return model


def _check_globs(model: nn.Module, globs: tuple[str, ...], name: str) -> None:
    """Raises a UserError for a glob that names no block. Abstract evaluation lists them: 0.3 s for ResNet-50."""
    blocks: list[str] = []
    probe = model.clone(remat=blocks.append)  # asked about every block, says no
    images = jnp.zeros((1, *model_info(name).input_size))
    jax.eval_shape(lambda: probe.init(jax.random.key(0), images, train=False))
    for glob in globs:
        if not any(fnmatchcase(block, glob) for block in blocks):
            raise UserError(f"remat: {did_you_mean(f'block of {name}', glob, blocks)}")


def _check_batch_norm(given: dict) -> None:
    if not isinstance(given, dict):
        raise UserError(f"batch_norm must be a dict of options of layers.BatchNorm, not {given!r}")
    offered = [field for field in inspect.signature(BatchNorm).parameters if field not in ("parent", "name", "dtype")]
    for option in given:
        if option not in offered:
            raise UserError(did_you_mean("option of batch_norm", str(option), offered))
