"""Residual networks with pre-activation: He, Zhang, Ren & Sun, "Identity Mappings in Deep Residual
Networks" (1603.05027).

Every unit is BN-ReLU-convolution, repeated, around an identity; a projection, without a norm, starts
from the unit's first activation. Behind the last unit stand one more BN and ReLU.

`preresnet*` take the first activation right after conv1, before the paths split, as the appendix
says. `resnetv2_*` are timm's: conv1 and pool are bare, and the first unit has an activation of its
own. Where the two differ is the basic first unit, whose identity is raw in timm, and which side of
the pool the first norm stands. `resnetv2_*d` have three 3x3 in the stem and average before they project,
as ResNet-D does (1812.01187).

The paper leaves open where a bottleneck halves the image. Here it is in the 3x3, as in all current
weights; the authors' code for CIFAR-10 (KaimingHe/resnet-1k-layers) does it in the first 1x1, which
is `unit=partial(BottleneckUnit, stride_first=True)`.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import (
    BatchNorm,
    Conv,
    ConvBN,
    average_shortcut,
    call_block,
    classify,
    depth_rates,
    drop_branch,
    max_pool,
    squeeze_excite,
    stage_strides,
    tap,
)
from cnn_jax.layers.options import (
    Checked,
    Classes,
    Count,
    DeepStem,
    GlobalPool,
    ModuleDef,
    OutputStride,
    Rate,
    Reduction,
    Remat,
)
from cnn_jax.models.card import CIFAR_MEAN, CIFAR_STD, ModelInfo
from cnn_jax.models.images import takes_images


def shortcut(
    x: jax.Array,
    activated: jax.Array,
    features: int,
    stride: int,
    dilation: tuple[int, int],
    averaging: bool,
    conv: ModuleDef,
) -> jax.Array:
    """The input itself, or a projection of its activation where the shape changes (sec. 3, appendix).

    `averaging` takes 2x2 means before a projection of stride 1 (1812.01187, fig. 2c). To be called inside a
    compact unit; (B, H, W, C) -> (B, H', W', features).
    """
    if stride == 1 and x.shape[-1] == features:
        return x
    before, behind = dilation
    if averaging and (stride > 1 or before != behind):
        activated, stride = average_shortcut(activated, stride), 1
    return conv(features, 1, stride, name="project")(activated)


class BasicUnit(nn.Module):
    """BN-ReLU-3x3 twice, plus shortcut (fig. 1b). (B, H, W, C) -> (B, H', W', width).

    `activated` says that the input has its BN and ReLU already. `dropout` acts before the second
    convolution (1605.07146, sec. 2.4). `dilation`: see resnet.BasicBlock. `averaging`: see shortcut.
    `stochastic_depth` is the rate of drop_branch.
    """

    width: int
    stride: int = 1
    dilation: tuple[int, int] = (1, 1)
    activated: bool = False
    averaging: bool = False
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    se: ModuleDef | None = None
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        before, behind = self.dilation
        first = x if self.activated else nn.relu(self.norm(name="norm1")(x, train=train))
        y = self.conv(self.width, 3, self.stride, before, dilation=before, name="conv1")(first)
        y = nn.relu(self.norm(name="norm2")(y, train=train))
        y = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(y)
        y = self.conv(self.width, 3, 1, behind, dilation=behind, name="conv2")(y)
        if self.se is not None:
            y = self.se(name="se")(y)
        y = drop_branch(y, self.stochastic_depth, train=train)
        return y + shortcut(x, first, self.width, self.stride, self.dilation, self.averaging, self.conv)


class BottleneckUnit(nn.Module):
    """BN-ReLU before each of 1x1, 3x3, 1x1, plus shortcut. (B, H, W, C) -> (B, H', W', 4 * width).

    `stride_first` puts the stride in the first 1x1. `dilation`, `activated`, `averaging`, `stochastic_depth`: see
    BasicUnit.
    """

    width: int
    stride: int = 1
    dilation: tuple[int, int] = (1, 1)
    activated: bool = False
    averaging: bool = False
    stride_first: bool = False
    stochastic_depth: Rate = 0.0
    se: ModuleDef | None = None
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        stride1, stride2 = (self.stride, 1) if self.stride_first else (1, self.stride)
        dilation = self.dilation[self.stride_first]
        first = x if self.activated else nn.relu(self.norm(name="norm1")(x, train=train))
        y = self.conv(self.width, 1, stride1, name="conv1")(first)
        y = nn.relu(self.norm(name="norm2")(y, train=train))
        y = self.conv(self.width, 3, stride2, dilation, dilation=dilation, name="conv2")(y)
        y = nn.relu(self.norm(name="norm3")(y, train=train))
        y = self.conv(4 * self.width, 1, name="conv3")(y)
        if self.se is not None:
            y = self.se(name="se")(y)
        y = drop_branch(y, self.stochastic_depth, train=train)
        return y + shortcut(x, first, 4 * self.width, self.stride, self.dilation, self.averaging, self.conv)


class PreResNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `stages` counts the units of each stage, `width` is that of the first. `stem`: "imagenet" (7x7
    of stride 2, max pool), "deep" (three 3x3 instead of the 7x7, the last without its norm) or "cifar" (one
    3x3 of stride 1, no pool: for 28 to 64 pixels). `averaging`: shortcuts average before they project.
    `output_stride`: see resnet.ResNet. `early_activation` takes the first activation before the pool and the first
    unit. `se_reduction` adds squeeze-and-excitation to the end of every residual branch; `dropout` acts
    before the classifier. `stochastic_depth` is the last unit's rate, see depth_rates. Taps: stem,
    stage1 and so on (sums, not yet activated), final.
    """

    stages: tuple[int, ...]
    unit: ModuleDef = BasicUnit
    stem: DeepStem = "imagenet"
    width: Count = 64
    early_activation: bool = True
    averaging: bool = False
    output_stride: OutputStride = 32
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    remat: Remat = False
    norm: ModuleDef = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(Conv, use_bias=False, dtype=self.dtype)
        norm = partial(self.norm, dtype=self.dtype)
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        unit = partial(self.unit, averaging=self.averaging, conv=conv, norm=norm, se=se)
        if self.stem == "deep":
            conv_norm = partial(ConvBN, self.width // 2, 3, padding=1, norm=self.norm, dtype=self.dtype)
            x = conv_norm(stride=2, name="stem1")(x, train=train)
            x = conv_norm(name="stem2")(x, train=train)
            x = conv(self.width, 3, 1, 1, name="stem3")(x)
        else:
            size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
            x = conv(self.width, size, stride, size // 2, name="stem")(x)
        if self.early_activation:
            x = nn.relu(norm(name="stem_norm")(x, train=train))
        x = tap(self, "stem", x)
        if self.stem != "cifar":
            x = max_pool(x, 3, 2, 1)
        rates = depth_rates(sum(self.stages), self.stochastic_depth)
        halving = [2 if stage else 1 for stage in range(len(self.stages))]
        strides = stage_strides(halving, 1 if self.stem == "cifar" else 4, self.output_stride)
        for i, (units, (stride, before, behind)) in enumerate(zip(self.stages, strides, strict=True), start=1):
            for j in range(1, units + 1):
                module = unit(
                    self.width * 2 ** (i - 1),
                    stride if j == 1 else 1,
                    (before if j == 1 else behind, behind),
                    activated=self.early_activation and i == j == 1,
                    stochastic_depth=next(rates),
                    name=f"stage{i}_block{j}",
                )
                x = call_block(module, x, train=train, remat=self.remat)
            x = tap(self, f"stage{i}", x)
        x = tap(self, "final", nn.relu(norm(name="norm")(x, train=train)))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


# Units per stage: 1512.03385, table 1; ResNet-200 has 16 more than ResNet-152, all at 28x28.
DEPTH = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
TimmNet = partial(PreResNet, early_activation=False)
TimmNetD = partial(TimmNet, stem="deep", averaging=True)
CifarNet = partial(PreResNet, stem="cifar", width=16, num_classes=10)

he = partial(
    ModelInfo, paper="He, Zhang, Ren & Sun, Identity Mappings in Deep Residual Networks (1603.05027)", year=2016
)
timm = partial(he, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
cifar = partial(he, input_size=(32, 32, 3), mean=CIFAR_MEAN, std=CIFAR_STD, crop=1.0, num_classes=10)

# fmt: off
VARIANTS = (
    he("preresnet18", partial(PreResNet, DEPTH[18]), "18 layers, basic units",
       "appendix", params=11_687_720, macs=1_814_073_344),
    he("preresnet34", partial(PreResNet, DEPTH[34]), "34 layers, basic units",
       "appendix", params=21_795_880, macs=3_663_761_408),
    he("preresnet50", partial(PreResNet, DEPTH[50], BottleneckUnit), "50 layers, bottleneck units",
       "appendix", params=25_549_352, macs=4_089_184_256),
    he("preresnet101", partial(PreResNet, DEPTH[101], BottleneckUnit), "101 layers, bottleneck units",
       "appendix", params=44_541_480, macs=7_801_405_440),
    he("preresnet152", partial(PreResNet, DEPTH[152], BottleneckUnit), "152 layers, bottleneck units",
       "table 5", params=60_185_128, macs=11_513_626_624),
    he("preresnet200", partial(PreResNet, DEPTH[200], BottleneckUnit), "200 layers, bottleneck units",
       "table 5", params=64_666_152, macs=15_007_481_856),
    timm("resnetv2_18", partial(TimmNet, DEPTH[18]), "18 layers, bare stem as in timm",
         "appendix", params=11_687_720, macs=1_814_073_344, references=("timm.resnetv2_18",), crop=0.9),
    timm("resnetv2_34", partial(TimmNet, DEPTH[34]), "34 layers, bare stem as in timm",
         "appendix", params=21_795_880, macs=3_663_761_408, references=("timm.resnetv2_34",), crop=0.9),
    timm("resnetv2_50", partial(TimmNet, DEPTH[50], BottleneckUnit), "50 layers, bare stem as in timm",
         "appendix", params=25_549_352, macs=4_089_184_256, references=("timm.resnetv2_50",), crop=0.95),
    timm("resnetv2_101", partial(TimmNet, DEPTH[101], BottleneckUnit), "101 layers, bare stem as in timm",
         "appendix", params=44_541_480, macs=7_801_405_440, references=("timm.resnetv2_101",), crop=0.95),
    timm("resnetv2_152", partial(TimmNet, DEPTH[152], BottleneckUnit), "152 layers, bare stem as in timm",
         "appendix", params=60_185_128, macs=11_513_626_624, references=("timm.resnetv2_152",)),
    timm("resnetv2_18d", partial(TimmNetD, DEPTH[18]), "18 layers, three 3x3 in the stem, averaging shortcuts",
         "not in the paper", params=11_706_952, macs=2_053_713_920, references=("timm.resnetv2_18d",), crop=0.9),
    timm("resnetv2_34d", partial(TimmNetD, DEPTH[34]), "34 layers, three 3x3 in the stem, averaging shortcuts",
         "not in the paper", params=21_815_112, macs=3_903_401_984, references=("timm.resnetv2_34d",), crop=0.9),
    timm("resnetv2_50d", partial(TimmNetD, DEPTH[50], BottleneckUnit),
         "50 layers, three 3x3 in the stem, averaging shortcuts",
         "not in the paper", params=25_568_584, macs=4_328_824_832, references=("timm.resnetv2_50d",)),
    timm("resnetv2_101d", partial(TimmNetD, DEPTH[101], BottleneckUnit),
         "101 layers, three 3x3 in the stem, averaging shortcuts",
         "not in the paper", params=44_560_712, macs=8_041_046_016, references=("timm.resnetv2_101d",)),
    timm("resnetv2_152d", partial(TimmNetD, DEPTH[152], BottleneckUnit),
         "152 layers, three 3x3 in the stem, averaging shortcuts",
         "not in the paper", params=60_204_360, macs=11_753_267_200, references=("timm.resnetv2_152d",)),
    cifar("preresnet110_cifar", partial(CifarNet, (18, 18, 18)), "110 layers for CIFAR-10, basic units",
          "table 3", params=1_730_522, macs=253_149_824),
    cifar("preresnet164_cifar", partial(CifarNet, (18, 18, 18), unit=BottleneckUnit),
          "164 layers for CIFAR-10, bottleneck units",
          "table 3", params=1_703_258, macs=247_646_720),
    cifar("preresnet1001_cifar", partial(CifarNet, (111, 111, 111), unit=BottleneckUnit),
          "1001 layers for CIFAR-10, bottleneck units",
          "table 4", params=10_327_706, macs=1_490_995_712),
)
