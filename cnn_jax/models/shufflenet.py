"""ShuffleNets: Zhang, Zhou, Lin & Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network
for Mobile Devices" (1707.01083), and Ma, Zhang, Zheng & Sun, "ShuffleNet V2: Practical Guidelines for
Efficient CNN Architecture Design" (1807.11164).

Channels mix between groups by a shuffle instead of dense 1x1 convolutions. Stages are numbered as in
both papers, from 2. Version 1 leaves open in which order a strided unit concatenates its paths; here
the branch comes first. Neither paper speaks of initialisation; weights are He's.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, ConvBN, avg_pool, call_block, classify, max_pool, tap
from cnn_jax.layers.options import Checked, Classes, Count, GlobalPool, ModuleDef, Rate, Remat, Stem
from cnn_jax.models.card import ModelInfo
from cnn_jax.models.images import takes_images

UNITS = (4, 8, 4)  # of stages 2 to 4, the first of each halving the image (v1, table 1; v2, table 5)
V1_WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # of stage 2 by groups; twice and four times that behind it
STEM = 24  # channels of conv1 in both


def shuffle_channels(x: jax.Array, groups: int) -> jax.Array:
    """The channels of (B, H, W, C) written as rows, one a group, and read by columns (v1, sec. 3.1)."""
    return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(x.shape)


def stem(x: jax.Array, kind: Stem, conv: ModuleDef, *, train: bool) -> jax.Array:
    """3x3 of stride 2, to be called inside a compact network; "cifar" keeps the image's size."""
    return conv(STEM, 3, 2 if kind == "imagenet" else 1, 1, name="stem")(x, train=train)


class ShuffleUnit(nn.Module):
    """Grouped 1x1 to a quarter -> shuffle -> 3x3 depthwise -> grouped 1x1, plus the input (v1, fig. 2b).

    (B, H, W, C) -> (B, H', W', features). With `stride` 2 the input's 3x3 averages stand beside the branch
    instead (fig. 2c). `group_first=False` leaves the first 1x1 dense (sec. 3.3: few channels).
    """

    features: int
    groups: int
    stride: int = 1
    group_first: bool = True
    conv: ModuleDef = ConvBN

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        inner = self.features // 4  # sec. 3.3
        y = self.conv(inner, 1, groups=self.groups if self.group_first else 1, name="reduce")(x, train=train)
        y = shuffle_channels(y, self.groups)
        y = self.conv(inner, 3, self.stride, 1, inner, act=None, name="depthwise")(y, train=train)
        new = self.features if self.stride == 1 else self.features - x.shape[-1]
        y = self.conv(new, 1, groups=self.groups, act=None, name="expand")(y, train=train)
        return nn.relu(x + y if self.stride == 1 else jnp.concatenate([y, avg_pool(x, 3, 2, 1)], axis=-1))


class SplitUnit(nn.Module):
    """Half of the channels as they are; 1x1 -> 3x3 depthwise -> 1x1 on the others; shuffle (v2, fig. 3c).

    (B, H, W, C) -> (B, H', W', features). With `stride` 2 both paths see all channels, and the first
    is a 3x3 depthwise -> 1x1 (fig. 3d).
    """

    features: int
    stride: int = 1
    conv: ModuleDef = ConvBN

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        half = self.features // 2
        depthwise = partial(self.conv, kernel_size=3, stride=self.stride, padding=1, act=None)
        kept, y = (x, x) if self.stride > 1 else jnp.split(x, 2, axis=-1)
        if self.stride > 1:
            kept = depthwise(x.shape[-1], groups=x.shape[-1], name="shortcut_depthwise")(kept, train=train)
            kept = self.conv(half, 1, name="shortcut_pointwise")(kept, train=train)
        y = self.conv(half, 1, name="pointwise1")(y, train=train)
        y = depthwise(half, groups=half, name="depthwise")(y, train=train)
        y = self.conv(half, 1, name="pointwise2")(y, train=train)
        return shuffle_channels(jnp.concatenate([kept, y], axis=-1), 2)


class ShuffleNetV1(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `groups` of the 1x1 convolutions: 1, 2, 3, 4 or 8 (table 1). `stem="cifar"`, for 28 to 64 pixels, gives
    the stem stride 1 and leaves out the pool. Taps: stem, stage2 to stage4.
    """

    groups: Count
    stem: Stem = "imagenet"
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.0
    remat: Remat = False
    norm: ModuleDef = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(ConvBN, norm=self.norm, dtype=self.dtype)
        x = tap(self, "stem", stem(x, self.stem, conv, train=train))
        if self.stem == "imagenet":
            x = max_pool(x, 3, 2, 1)
        for i, units in enumerate(UNITS, start=2):
            for j in range(1, units + 1):
                name, features = f"stage{i}_block{j}", V1_WIDTHS[self.groups] * 2 ** (i - 2)
                module = ShuffleUnit(features, self.groups, 2 if j == 1 else 1, i > 2 or j > 1, conv, name=name)
                x = call_block(module, x, train=train, remat=self.remat)
            x = tap(self, f"stage{i}", x)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


class ShuffleNetV2(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `width` is that of stage 2, doubled by the next stages, `last` that of the last 1x1 convolution.
    `stem="cifar"`: as in version 1. Taps: stem, stage2 to stage4, final.
    """

    width: Count = 116
    last: Count = 1024
    stem: Stem = "imagenet"
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.0
    remat: Remat = False
    norm: ModuleDef = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(ConvBN, norm=self.norm, dtype=self.dtype)
        x = tap(self, "stem", stem(x, self.stem, conv, train=train))
        if self.stem == "imagenet":
            x = max_pool(x, 3, 2, 1)
        for i, units in enumerate(UNITS, start=2):
            for j in range(1, units + 1):
                module = SplitUnit(self.width * 2 ** (i - 2), 2 if j == 1 else 1, conv, name=f"stage{i}_block{j}")
                x = call_block(module, x, train=train, remat=self.remat)
            x = tap(self, f"stage{i}", x)
        x = tap(self, "final", conv(self.last, 1, name="final")(x, train=train))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


v1 = partial(ModelInfo, paper="Zhang, Zhou, Lin & Sun, ShuffleNet (1707.01083)", year=2017, section="table 1")
v2 = partial(ModelInfo, paper="Ma, Zhang, Zheng & Sun, ShuffleNet V2 (1807.11164)", year=2018, section="table 5")

# fmt: off
VARIANTS = (
    v1("shufflenet_v1_g1", partial(ShuffleNetV1, 1), "dense 1x1 convolutions",
       params=1_531_936, macs=143_078_976, references=("pytorchcv.shufflenet_g1_w1",)),
    v1("shufflenet_v1_g2", partial(ShuffleNetV1, 2), "1x1 convolutions of 2 groups",
       params=1_733_848, macs=140_836_512, references=("pytorchcv.shufflenet_g2_w1",)),
    v1("shufflenet_v1_g3", partial(ShuffleNetV1, 3), "1x1 convolutions of 3 groups",
       params=1_865_728, macs=137_460_672, references=("pytorchcv.shufflenet_g3_w1",)),
    v1("shufflenet_v1_g4", partial(ShuffleNetV1, 4), "1x1 convolutions of 4 groups",
       params=1_968_344, macs=134_339_776, references=("pytorchcv.shufflenet_g4_w1",)),
    v1("shufflenet_v1_g8", partial(ShuffleNetV1, 8), "1x1 convolutions of 8 groups",
       params=2_434_768, macs=138_365_952, references=("pytorchcv.shufflenet_g8_w1",)),
    v2("shufflenet_v2_x0_5", partial(ShuffleNetV2, 48), "half of the channels pass each unit; half the width",
       params=1_366_792, macs=40_476_448, references=("torchvision.shufflenet_v2_x0_5",)),
    v2("shufflenet_v2_x1_0", ShuffleNetV2, "half of the channels pass each unit",
       params=2_278_604, macs=144_907_992, references=("torchvision.shufflenet_v2_x1_0",)),
    v2("shufflenet_v2_x1_5", partial(ShuffleNetV2, 176), "half of the channels pass each unit; 1.5 times the width",
       params=3_503_624, macs=295_759_392, references=("torchvision.shufflenet_v2_x1_5",), crop=224 / 232),
    v2("shufflenet_v2_x2_0", partial(ShuffleNetV2, 244, 2048),
       "half of the channels pass each unit; twice the width",
       params=7_393_996, macs=583_253_464, references=("torchvision.shufflenet_v2_x2_0",), crop=224 / 232),
)
