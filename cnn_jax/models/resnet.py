"""Residual networks: He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition"
(1512.03385), and what keeps their plan: ResNeXt (1611.05431), wide bottlenecks (1605.07146) and
ResNet-D (1812.01187).

`resnet50` and deeper halve the image in the 3x3 convolution, as all current weights do; the
authors' own nets halve it in the first 1x1: `resnet50_v1` and so on, as Keras has them and their weights.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import UserError
from cnn_jax.layers import (
    BatchNorm,
    ConvBN,
    Shortcut,
    call_block,
    classify,
    depth_rates,
    drop_branch,
    max_pool,
    squeeze_excite,
    stage_strides,
    tap,
)
from cnn_jax.layers.options import Checked, Classes, Count, GlobalPool, ModuleDef, OutputStride, Rate, Reduction, Remat
from cnn_jax.models.card import ModelInfo, both
from cnn_jax.models.images import takes_images


class BasicBlock(nn.Module):
    """3x3 -> 3x3, plus shortcut (He 2015, fig. 5 left). (B, H, W, C) -> (B, H', W', width).

    `dilation` are those of what stands before the place where a block halves the image, and behind it; they differ
    where a stage dilates instead (see layers.stage_strides).
    `branch_act` stands behind the second norm, before any squeeze-and-excitation; the paper has none.
    `stochastic_depth` is the rate of drop_branch; `zero_init` starts the second norm's scale at 0.

    Raises:
      UserError: `zero_init` with a `branch_act`.
    """

    width: int
    stride: int = 1
    dilation: tuple[int, int] = (1, 1)
    branch_act: Callable | None = None
    shortcut: ModuleDef | None = Shortcut
    se: ModuleDef | None = None
    stochastic_depth: Rate = 0.0
    zero_init: bool = False
    conv: ModuleDef = ConvBN

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.zero_init and self.branch_act is not None:
            raise UserError("zero_init would leave the activation at the end of each branch at 0, without a gradient")
        before, behind = self.dilation
        y = self.conv(self.width, 3, self.stride, before, dilation=before, name="conv1")(x, train=train)
        second = partial(self.conv, act=self.branch_act, zero_init=self.zero_init)
        y = second(self.width, 3, 1, behind, dilation=behind, name="conv2")(y, train=train)
        if self.se is not None:
            y = self.se(name="se")(y)
        y = drop_branch(y, self.stochastic_depth, train=train)
        if self.shortcut is not None:
            shortcut = self.shortcut(self.width, self.stride, self.dilation, conv=self.conv, name="shortcut")
            y = y + shortcut(x, train=train)
        return nn.relu(y)


class Bottleneck(nn.Module):
    """1x1 reduce -> 3x3 -> 1x1 expand, plus shortcut (He 2015, fig. 5 right).

    (B, H, W, C) -> (B, H', W', 4 * width). The 3x3 has `groups` groups, each `group_width` wide
    when width = 64 (Xie 2016, 1611.05431, table 1). `stride_first` puts the stride in the first
    1x1, as the authors' nets do. `reduce_first` narrows that 1x1 once more (SENet-154). `dilation`: see BasicBlock.
    `stochastic_depth` is the rate of drop_branch; `zero_init` starts the third norm's scale at 0.
    """

    width: int
    stride: int = 1
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    group_width: int = 64
    stride_first: bool = False
    reduce_first: int = 1
    shortcut: ModuleDef | None = Shortcut
    se: ModuleDef | None = None
    stochastic_depth: Rate = 0.0
    zero_init: bool = False
    conv: ModuleDef = ConvBN

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        inner = self.width * self.group_width // 64 * self.groups
        first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
        dilation = self.dilation[self.stride_first]
        y = self.conv(inner // self.reduce_first, 1, first, name="conv1")(x, train=train)
        y = self.conv(inner, 3, second, dilation, self.groups, dilation, name="conv2")(y, train=train)
        y = self.conv(4 * self.width, 1, act=None, zero_init=self.zero_init, name="conv3")(y, train=train)
        if self.se is not None:
            y = self.se(name="se")(y)
        y = drop_branch(y, self.stochastic_depth, train=train)
        if self.shortcut is not None:
            shortcut = self.shortcut(4 * self.width, self.stride, self.dilation, conv=self.conv, name="shortcut")
            y = y + shortcut(x, train=train)
        return nn.relu(y)


class ResNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `stages` counts the blocks of each stage, of which the first has `width` channels (a Bottleneck's four times as many
    behind it), each next one twice as many. `stem`: "imagenet" (7x7 of stride 2, max pool),
    "space_to_depth" (the same function of the same kernel, see conv.convolve_blocks), "deep" (three
    3x3, 1812.01187, fig. 2b) or "cifar" (one 3x3 of stride 1, no pool: for 28 to 64 pixels).
    `shortcut`: see Shortcut, "none" for a plain net. `se_reduction` adds squeeze-and-excitation to
    every block (1709.01507, fig. 3). `caffe_pool`: the max pool has no padding, and a last window
    may hang over the edge. `stochastic_depth` is the last block's rate, see depth_rates.
    `zero_init` starts the last norm of each branch at 0 (1706.02677, sec. 5.1), with shortcut "A"
    not in the first block of a stage: its new channels are zeros, and a ReLU has no gradient there.
    `output_stride` 16 or 8: the last one or two stages dilate where they would halve the image, see
    layers.stage_strides. `scan` runs the blocks of a stage behind its first as one, stage1_rest and so on, in a loop:
    see stacked.stack_blocks. Taps: stem, stage1 to stage4.
    """

    stages: tuple[int, ...]
    block: ModuleDef = BasicBlock
    stem: Literal["imagenet", "space_to_depth", "deep", "cifar"] = "imagenet"
    stem_width: Count = 64
    width: Count = 64
    caffe_pool: bool = False
    shortcut: Literal["A", "B", "C", "D", "none"] = "B"
    shortcut_kernel: Count = 1
    output_stride: OutputStride = 32
    se_reduction: Reduction = None
    se_divisor: Count = 1
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    zero_init: bool = False
    remat: Remat = False
    scan: bool = False
    norm: ModuleDef = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(ConvBN, norm=self.norm, dtype=self.dtype)
        shortcut = partial(Shortcut, kind=self.shortcut, kernel_size=self.shortcut_kernel)
        se = squeeze_excite(self.se_reduction, self.se_divisor, dtype=self.dtype)
        block = partial(
            self.block,
            conv=conv,
            shortcut=None if self.shortcut == "none" else shortcut,
            se=se,
        )
        stem = self.stem_width
        if self.stem in ("imagenet", "space_to_depth"):
            by_blocks = self.stem == "space_to_depth"
            x = tap(self, "stem", conv(stem, 7, 2, 3, by_blocks=by_blocks, name="stem")(x, train=train))
        elif self.stem == "deep":
            x = conv(stem // 2, 3, 2, 1, name="stem1")(x, train=train)
            x = conv(stem // 2, 3, 1, 1, name="stem2")(x, train=train)
            x = tap(self, "stem", conv(stem, 3, 1, 1, name="stem3")(x, train=train))
        else:
            x = tap(self, "stem", conv(stem, 3, 1, 1, name="stem")(x, train=train))
        if self.stem != "cifar":
            x = max_pool(x, 3, 2, ceil_mode=True) if self.caffe_pool else max_pool(x, 3, 2, 1)
        rates = depth_rates(sum(self.stages), self.stochastic_depth)
        halving = [2 if stage else 1 for stage in range(len(self.stages))]
        strides = stage_strides(halving, 1 if self.stem == "cifar" else 4, self.output_stride)
        for i, (blocks, (stride, before, behind)) in enumerate(zip(self.stages, strides, strict=True), start=1):
            for j in range(1, (min(blocks, 2) if self.scan else blocks) + 1):
                scanned = blocks - 1 if self.scan and j == 2 else None
                module = block(
                    self.width * 2 ** (i - 1),
                    stride if j == 1 else 1,
                    (before if j == 1 else behind, behind),
                    stochastic_depth=next(rates),
                    zero_init=self.zero_init and (self.shortcut != "A" or j > 1),
                    name=f"stage{i}_rest" if scanned else f"stage{i}_block{j}",
                )
                x = call_block(module, x, train=train, remat=self.remat, scanned=scanned)
            x = tap(self, f"stage{i}", x)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


def resnext(groups: int, group_width: int) -> ModuleDef:
    """ResNeXt's block: `groups` paths of `group_width` channels each (Xie 2016, table 1)."""
    return partial(Bottleneck, groups=groups, group_width=group_width)


STRIDE_FIRST = partial(Bottleneck, stride_first=True)
ResNetV1 = partial(ResNet, block=STRIDE_FIRST, norm=partial(BatchNorm, epsilon=1.001e-5))
ResNetD = partial(ResNet, stem="deep", shortcut="D")
# Table 1; 26 is timm's, 200 of 1603.05027.
DEPTH = {
    18: (2, 2, 2, 2), 26: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}  # fmt: skip

he = partial(
    ModelInfo, paper="He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition (1512.03385)", year=2015
)
# Caffe's images: 0 to 255 less a mean.
v1 = partial(he, section="table 1", mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255,) * 3)
xie = partial(
    ModelInfo,
    paper="Xie, Girshick, Dollar, Tu & He, Aggregated Residual Transformations for Deep Neural Networks (1611.05431)",
    year=2016,
)
wide = partial(ModelInfo, paper="Zagoruyko & Komodakis, Wide Residual Networks (1605.07146)", year=2016)
bag = partial(
    ModelInfo, paper="He, Zhang et al., Bag of Tricks for Image Classification with CNNs (1812.01187)", year=2018
)
timm = partial(bag, section="not in the paper", interpolation="bicubic")

# fmt: off
VARIANTS = (
    he("plain18", partial(ResNet, DEPTH[18], shortcut="none"), "18 layers without shortcuts",
       "table 1", params=11_515_688, macs=1_794_805_760),
    he("plain34", partial(ResNet, DEPTH[34], shortcut="none"), "34 layers without shortcuts",
       "table 1", params=21_623_848, macs=3_644_493_824),
    he("resnet18", partial(ResNet, DEPTH[18]), "18 layers, basic blocks",
       "table 1", params=11_689_512, macs=1_814_073_344, references=both("resnet18")),
    he("resnet34", partial(ResNet, DEPTH[34]), "34 layers, basic blocks",
       "table 1", params=21_797_672, macs=3_663_761_408, references=both("resnet34")),
    he("resnet50", partial(ResNet, DEPTH[50], Bottleneck), "50 layers, stride in the 3x3",
       "table 1", params=25_557_032, macs=4_089_184_256, references=both("resnet50")),
    he("resnet101", partial(ResNet, DEPTH[101], Bottleneck), "101 layers, stride in the 3x3",
       "table 1", params=44_549_160, macs=7_801_405_440, references=both("resnet101")),
    he("resnet152", partial(ResNet, DEPTH[152], Bottleneck), "152 layers, stride in the 3x3",
       "table 1", params=60_192_808, macs=11_513_626_624, references=both("resnet152")),
    v1("resnet50_v1", partial(ResNetV1, DEPTH[50]), "50 layers as the authors': stride in the first 1x1",
       params=25_557_032, macs=3_857_973_248, references=("keras.ResNet50",)),
    v1("resnet101_v1", partial(ResNetV1, DEPTH[101]), "101 layers as the authors': stride in the first 1x1",
       params=44_549_160, macs=7_570_194_432, references=("keras.ResNet101",)),
    v1("resnet152_v1", partial(ResNetV1, DEPTH[152]), "152 layers as the authors': stride in the first 1x1",
       params=60_192_808, macs=11_282_415_616, references=("keras.ResNet152",)),
    bag("resnet50d", partial(ResNet, DEPTH[50], Bottleneck, stem="deep", shortcut="D"),
        "ResNet-50 with three 3x3 in the stem and averaging shortcuts",
        "sec. 4, fig. 2",
        params=25_576_264, macs=4_328_824_832, references=("timm.resnet50d",), interpolation="bicubic"),
    timm("resnet26", partial(ResNet, DEPTH[26], Bottleneck), "26 layers, stride in the 3x3: timm's",
         params=15_995_176, macs=2_342_256_640, references=("timm.resnet26",)),
    timm("resnet18d", partial(ResNetD, DEPTH[18]), "ResNet-18 with the stem and shortcuts of resnet50d",
         params=11_708_744, macs=2_053_713_920, references=("timm.resnet18d",)),
    timm("resnet26d", partial(ResNetD, DEPTH[26], Bottleneck), "resnet26 with the stem and shortcuts of resnet50d",
         params=16_014_408, macs=2_581_897_216, references=("timm.resnet26d",)),
    timm("resnet34d", partial(ResNetD, DEPTH[34]), "ResNet-34 with the stem and shortcuts of resnet50d",
         params=21_816_904, macs=3_903_401_984, references=("timm.resnet34d",)),
    timm("resnet101d", partial(ResNetD, DEPTH[101], Bottleneck), "ResNet-101 with the stem and shortcuts of resnet50d",
         params=44_568_392, macs=10_501_963_776, references=("timm.resnet101d",), input_size=(256, 256, 3), crop=0.95),
    timm("resnet152d", partial(ResNetD, DEPTH[152], Bottleneck), "ResNet-152 with the stem and shortcuts of resnet50d",
         params=60_212_040, macs=15_350_579_200, references=("timm.resnet152d",), input_size=(256, 256, 3), crop=0.95),
    timm("resnet200d", partial(ResNetD, DEPTH[200], Bottleneck), "200 layers with the stem and shortcuts of resnet50d",
         params=64_693_064, macs=19_913_981_952, references=("timm.resnet200d",), input_size=(256, 256, 3), crop=0.95),
    timm("resnet50c", partial(ResNet, DEPTH[50], Bottleneck, stem="deep"), "ResNet-50 with three 3x3 in the stem",
         section="fig. 2b", params=25_576_264, macs=4_328_824_832, references=("timm.resnet50c",)),
    timm("resnet50s", partial(ResNet, DEPTH[50], Bottleneck, stem="deep", stem_width=128),
         "ResNet-50 with three 3x3 in the stem, twice as wide",
         params=25_680_808, macs=5_444_337_664, references=("timm.resnet50s",)),
    timm("resnext50d_32x4d", partial(ResNetD, DEPTH[50], resnext(32, 4)),
         "ResNeXt-50 with the stem and shortcuts of resnet50d",
         params=25_048_136, macs=4_470_120_448, references=("timm.resnext50d_32x4d",)),
    xie("resnext101_32x16d", partial(ResNet, DEPTH[101], resnext(32, 16)), "101 layers, 32 groups 16 wide",
        "not in the paper", params=194_026_792, macs=36_163_289_088, references=("timm.resnext101_32x16d",)),
    xie("resnext50_32x4d", partial(ResNet, DEPTH[50], resnext(32, 4)), "50 layers, 32 groups 4 wide",
        "table 1", params=25_028_904, macs=4_230_479_872, references=both("resnext50_32x4d")),
    xie("resnext101_32x4d", partial(ResNet, DEPTH[101], resnext(32, 4)), "101 layers, 32 groups 4 wide",
        "table 2", params=44_177_704, macs=7_969_996_800, references=("timm.resnext101_32x4d",)),
    xie("resnext101_32x8d", partial(ResNet, DEPTH[101], resnext(32, 8)), "101 layers, 32 groups 8 wide",
        "table 2", params=88_791_336, macs=16_414_015_488, references=both("resnext101_32x8d")),
    xie("resnext101_64x4d", partial(ResNet, DEPTH[101], resnext(64, 4)), "101 layers, 64 groups 4 wide",
        "table 4", params=83_455_272, macs=15_460_270_080, references=both("resnext101_64x4d")),
    wide("wide_resnet50_2", partial(ResNet, DEPTH[50], partial(Bottleneck, group_width=128)),
         "ResNet-50 with 3x3 layers twice as wide",
         "table 8", params=68_883_240, macs=11_398_021_120, references=both("wide_resnet50_2")),
    wide("wide_resnet101_2", partial(ResNet, DEPTH[101], partial(Bottleneck, group_width=128)),
         "ResNet-101 with 3x3 layers twice as wide",
         "sec. 3.4", params=126_886_696, macs=22_753_050_624, references=both("wide_resnet101_2")),
)
