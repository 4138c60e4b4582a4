"""Xception: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (1610.02357).

As the published weights in timm have it (legacy_xception, ported from Keras): convolutions of the
stem unpadded, max pools padded by 1 on both sides, epsilon 1e-5 where Keras has 1e-3. The
optional fully connected layers before the classifier (sec. 3) are left out.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import (
    BatchNorm,
    Conv,
    ConvBN,
    call_block,
    classify,
    depth_rates,
    drop_branch,
    global_avg_pool,
    last_norm,
    max_pool,
    squeeze_excite,
    tap,
)
from cnn_jax.layers.options import Checked, Classes, ModuleDef, Rate, Reduction, Remat, Stem
from cnn_jax.models.card import HALF, ModelInfo
from cnn_jax.models.images import takes_images

# Fig. 5: the widths of each block's separable convolutions, and its stride.
BLOCKS = (
    ((128, 128), 2),  # entry flow
    ((256, 256), 2),
    ((728, 728), 2),
    *(((728, 728, 728), 1),) * 8,  # middle flow
    ((728, 1024), 2),  # exit flow
)


class SeparableConv(nn.Module):
    """Depthwise 3x3 -> pointwise 1x1 -> batch norm, (B, H, W, C) -> (B, H, W, features).

    Nothing stands between the two convolutions (sec. 4.7). `zero_init` starts the norm's scale at 0.
    """

    features: int
    norm: ModuleDef
    dtype: jnp.dtype
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(Conv, use_bias=False, dtype=self.dtype)
        x = conv(x.shape[-1], 3, 1, 1, x.shape[-1], name="depthwise")(x)
        x = conv(self.features, 1, name="pointwise")(x)
        return last_norm(self.norm, self.zero_init)(dtype=self.dtype, name="norm")(x, train=train)


class Block(nn.Module):
    """ReLU and separable convolution in turn, plus shortcut (fig. 5). (B, H, W, C) -> (B, H', W', widths[-1]).

    A stride is that of a 3x3 max pool after them. `act_first=False` leaves out the first ReLU. The
    shortcut takes the raw input, through a 1x1 where the shape changes. `stochastic_depth` is the
    rate of drop_branch; `zero_init` starts the last separable convolution's scale at 0.
    """

    widths: tuple[int, ...]
    stride: int
    act_first: bool
    separable: ModuleDef
    conv: ModuleDef
    se: ModuleDef | None
    stochastic_depth: Rate = 0.0
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = x
        for i, width in enumerate(self.widths, start=1):
            if i > 1 or self.act_first:
                y = nn.relu(y)
            zero_init = self.zero_init and i == len(self.widths)
            y = self.separable(width, zero_init=zero_init, name=f"conv{i}")(y, train=train)
        if self.stride > 1:
            y = max_pool(y, 3, self.stride, 1)
        if self.se is not None:
            y = self.se(name="se")(y)
        if x.shape != y.shape:
            x = self.conv(self.widths[-1], 1, self.stride, act=None, name="project")(x, train=train)
        return x + drop_branch(y, self.stochastic_depth, train=train)


class Xception(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `stem`: "imagenet" (3x3 of stride 2 and 3x3, unpadded) or "cifar" (both of stride 1 and padded:
    for 28 to 64 pixels). `se_reduction` gates every block before the addition (1709.01507,
    fig. 3). `stochastic_depth` is the last block's rate, see depth_rates; `zero_init` starts the
    last norm of each branch at 0. Taps: conv2, block1 to block12, conv4.
    """

    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    dropout: Rate = 0.5  # sec. 4.3
    stochastic_depth: Rate = 0.0
    zero_init: bool = False
    remat: Remat = False
    norm: ModuleDef = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(ConvBN, norm=self.norm, dtype=self.dtype)
        separable = partial(SeparableConv, norm=self.norm, dtype=self.dtype)
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        stride, padding = (1, 1) if self.stem == "cifar" else (2, 0)
        x = conv(32, 3, stride, padding, name="conv1")(x, train=train)
        x = tap(self, "conv2", conv(64, 3, 1, padding, name="conv2")(x, train=train))
        rates = depth_rates(len(BLOCKS), self.stochastic_depth)
        for i, (widths, stride) in enumerate(BLOCKS, start=1):
            block = Block(widths, stride, i > 1, separable, conv, se, next(rates), self.zero_init, name=f"block{i}")
            x = tap(self, f"block{i}", call_block(block, x, train=train, remat=self.remat))
        x = nn.relu(separable(1536, name="conv3")(x, train=train))
        x = tap(self, "conv4", nn.relu(separable(2048, name="conv4")(x, train=train)))
        return classify(global_avg_pool(x), self.num_classes, train=train, dropout=self.dropout, dtype=self.dtype)


VARIANTS = (
    ModelInfo(
        "xception",
        Xception,
        "depthwise separable convolutions in residual blocks; images in [-1, 1]",
        "fig. 5",
        params=22_855_952,
        macs=8_357_403_496,
        paper="Chollet, Xception: Deep Learning with Depthwise Separable Convolutions (1610.02357)",
        year=2016,
        input_size=(299, 299, 3),
        mean=HALF,
        std=HALF,
        interpolation="bicubic",
        crop=0.8975,
        references=("timm.legacy_xception",),
        aliases=("legacy_xception",),
    ),
)
