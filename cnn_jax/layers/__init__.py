"""What several families of networks share. Tensors are (B, H, W, C), channels last."""

from cnn_jax.layers.blocks import (
    ConvBN,
    Shortcut,
    SqueezeExcite,
    average_shortcut,
    call_block,
    classify,
    depth_rates,
    drop_branch,
    last_norm,
    squeeze_excite,
    stage_strides,
    zero_pad_shortcut,
)
from cnn_jax.layers.branches import Chain, Inception, Unit, branches
from cnn_jax.layers.conv import Conv, same_padding
from cnn_jax.layers.lowered import lowering
from cnn_jax.layers.norm import BatchNorm, LocalResponseNorm
from cnn_jax.layers.pool import adaptive_avg_pool, avg_pool, global_avg_pool, global_pool, max_pool
from cnn_jax.layers.tap import auxiliary, perturbed, taken, tap

__all__ = [
    "BatchNorm",
    "Chain",
    "Conv",
    "ConvBN",
    "Inception",
    "LocalResponseNorm",
    "Shortcut",
    "SqueezeExcite",
    "Unit",
    "adaptive_avg_pool",
    "auxiliary",
    "average_shortcut",
    "avg_pool",
    "branches",
    "call_block",
    "classify",
    "depth_rates",
    "drop_branch",
    "global_avg_pool",
    "global_pool",
    "last_norm",
    "lowering",
    "max_pool",
    "perturbed",
    "same_padding",
    "squeeze_excite",
    "stage_strides",
    "taken",
    "tap",
    "zero_pad_shortcut",
]
