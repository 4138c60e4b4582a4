"""Xception: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (1610.02357).

As the published weights in timm have it (legacy_xception, ported from Keras): convolutions of the
stem unpadded, max pools padded by 1 on both sides, epsilon 1e-5. `xception_keras` is the author's own:
pools padded as TensorFlow pads them, epsilon 1e-3. The optional fully connected layers before the
classifier (sec. 3) are left out.

`xception41`, `65` and `71` are the "aligned" ones of Chen, Zhu, Papandreou, Schroff & Adam,
"Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation" (1802.02611), fig. 4:
three separable convolutions a block, the last of which has the pool's stride, batch norm behind each
depthwise layer, and no shortcut around the last block. Layouts and weights are timm's.
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
    last_norm,
    max_pool,
    same_padding,
    squeeze_excite,
    tap,
)
from cnn_jax.layers.options import Checked, Classes, GlobalPool, ModuleDef, Rate, Reduction, Remat, Stem
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


# Of the aligned nets: 1802.02611, fig. 4, and for 71 layers the authors' code.
EXIT = (((728, 1024, 1024), 2), ((1536, 1536, 2048), 1))
ALIGNED = {
    layers: (*(((width,) * 3, stride) for width, stride in entry), *(((728,) * 3, 1),) * middle, *EXIT)
    for layers, entry, middle in (
        (41, ((128, 2), (256, 2), (728, 2)), 8),
        (65, ((128, 2), (256, 2), (728, 2)), 16),
        (71, ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)), 16),
    )
}


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

    A stride is that of a 3x3 max pool after them, which `tf_padding` pads as TensorFlow does. `act_first=False` leaves
    out the first ReLU. The
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
    tf_padding: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = x
        for i, width in enumerate(self.widths, start=1):
            if i > 1 or self.act_first:
                y = nn.relu(y)
            zero_init = self.zero_init and i == len(self.widths)
            y = self.separable(width, zero_init=zero_init, name=f"conv{i}")(y, train=train)
        if self.stride > 1:
            y = max_pool(y, 3, self.stride, same_padding(y, 3, self.stride) if self.tf_padding else 1)
        if self.se is not None:
            y = self.se(name="se")(y)
        if x.shape != y.shape:
            x = self.conv(self.widths[-1], 1, self.stride, act=None, name="project")(x, train=train)
        return x + drop_branch(y, self.stochastic_depth, train=train)


class Xception(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `stem`: "imagenet" (3x3 of stride 2 and 3x3, unpadded) or "cifar" (both of stride 1 and padded:
    for 28 to 64 pixels). `tf_padding`: see Block. `se_reduction` gates every block before the addition (1709.01507,
    fig. 3). `stochastic_depth` is the last block's rate, see depth_rates; `zero_init` starts the
    last norm of each branch at 0. Taps: conv2, block1 to block12, conv4.
    """

    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.5  # sec. 4.3
    stochastic_depth: Rate = 0.0
    zero_init: bool = False
    tf_padding: bool = False
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
            block = Block(
                widths,
                stride,
                i > 1,
                separable,
                conv,
                se,
                stochastic_depth=next(rates),
                zero_init=self.zero_init,
                tf_padding=self.tf_padding,
                name=f"block{i}",
            )
            x = tap(self, f"block{i}", call_block(block, x, train=train, remat=self.remat))
        x = nn.relu(separable(1536, name="conv3")(x, train=train))
        x = tap(self, "conv4", nn.relu(separable(2048, name="conv4")(x, train=train)))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


class AlignedBlock(nn.Module):
    """Three of (3x3 depthwise, 1x1), each with batch norm, plus shortcut (1802.02611, fig. 4).

    (B, H, W, C) -> (B, H', W', widths[-1]), the last depthwise layer with the stride. A ReLU stands before
    each pair, or, without `shortcut`, behind each layer. `stochastic_depth`, `zero_init`: see Block.
    """

    widths: tuple[int, int, int]
    stride: int
    shortcut: bool
    conv: ModuleDef
    stochastic_depth: float = 0.0
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv, y = partial(self.conv, act=None if self.shortcut else nn.relu), x
        for i, width in enumerate(self.widths, start=1):
            if self.shortcut:
                y = nn.relu(y)
            channels, stride = y.shape[-1], self.stride if i == len(self.widths) else 1
            zero_init = self.zero_init and self.shortcut and i == len(self.widths)
            y = conv(channels, 3, stride, 1, channels, name=f"conv{i}_depthwise")(y, train=train)
            y = conv(width, 1, zero_init=zero_init, name=f"conv{i}_pointwise")(y, train=train)
        if not self.shortcut:
            return y
        if x.shape != y.shape:
            x = conv(self.widths[-1], 1, self.stride, name="project")(x, train=train)
        return x + drop_branch(y, self.stochastic_depth, train=train)


class AlignedXception(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `blocks` is a row of ALIGNED. `stem`: "imagenet" (3x3 of stride 2 and 3x3) or "cifar" (both of
    stride 1: for 28 to 64 pixels). `stochastic_depth` is the rate of the last block but one, see depth_rates;
    `zero_init` starts the last norm of each branch at 0. Taps: conv2, block1 and so on.
    """

    blocks: tuple[tuple[tuple[int, int, int], int], ...]
    stem: Stem = "imagenet"
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    zero_init: bool = False
    remat: Remat = False
    norm: ModuleDef = partial(BatchNorm, epsilon=1e-3)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(ConvBN, norm=self.norm, dtype=self.dtype)
        x = conv(32, 3, 1 if self.stem == "cifar" else 2, 1, name="conv1")(x, train=train)
        x = tap(self, "conv2", conv(64, 3, 1, 1, name="conv2")(x, train=train))
        last = len(self.blocks)
        rates = (*depth_rates(last - 1, self.stochastic_depth), 0.0)
        for i, ((widths, stride), rate) in enumerate(zip(self.blocks, rates, strict=True), start=1):
            block = AlignedBlock(widths, stride, i < last, conv, rate, self.zero_init, name=f"block{i}")
            x = tap(self, f"block{i}", call_block(block, x, train=train, remat=self.remat))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


chollet = partial(
    ModelInfo,
    paper="Chollet, Xception: Deep Learning with Depthwise Separable Convolutions (1610.02357)",
    year=2016,
    input_size=(299, 299, 3),
    mean=HALF,
    std=HALF,
    interpolation="bicubic",
)
aligned = partial(
    chollet,
    paper="Chen, Zhu, Papandreou, Schroff & Adam, Encoder-Decoder with Atrous Separable Convolution (1802.02611)",
    year=2018,
    crop=0.903,
)

# fmt: off
VARIANTS = (
    chollet("xception", Xception, "depthwise separable convolutions in residual blocks; images in [-1, 1]", "fig. 5",
            params=22_855_952, macs=8_357_403_496, references=("timm.legacy_xception",), crop=0.8975,
            aliases=("legacy_xception",)),
    chollet("xception_keras", partial(Xception, tf_padding=True, norm=partial(BatchNorm, epsilon=1e-3)),
            "the author's: pools padded as in TensorFlow, epsilon 1e-3", "fig. 5",
            params=22_855_952, macs=8_357_403_496, references=("keras.Xception",), interpolation="bilinear"),
    aligned("xception41", partial(AlignedXception, ALIGNED[41]), "aligned Xception of 41 layers", "the authors' code",
            params=26_969_560, macs=9_204_134_312, references=("timm.xception41",)),
    aligned("xception65", partial(AlignedXception, ALIGNED[65]), "aligned Xception of 65 layers", "fig. 4",
            params=39_916_312, macs=13_852_682_216, references=("timm.xception65",), crop=0.94),
    aligned("xception71", partial(AlignedXception, ALIGNED[71]), "aligned Xception of 71 layers", "the authors' code",
            params=42_338_736, macs=17_946_553_928, references=("timm.xception71",)),
)
