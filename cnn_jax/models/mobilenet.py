"""MobileNet: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications"
(1704.04861).

`mobilenet_100` and its widths have the paper's ReLU; `mobilenetv1_100` and `mobilenetv1_125`
are timm's networks, the same but for ReLU6. Table 1 prints stride 2 for the last
depthwise layer, whose map stays 7x7: a misprint, its stride is 1. The authors' TensorFlow nets pad
strided layers on one side only. So do Keras's, `*_keras`, with an epsilon of 1e-3; the others pad
symmetrically, as PyTorch's weights need. The paper speaks neither of dropout nor of initialisation: weights are He's.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, ConvBN, call_block, classify, same_padding, squeeze_excite, stage_strides, tap
from cnn_jax.layers.conv import Padding
from cnn_jax.layers.options import (
    Checked,
    Classes,
    Count,
    Factor,
    GlobalPool,
    ModuleDef,
    OutputStride,
    Rate,
    Reduction,
    Remat,
    Stem,
)
from cnn_jax.models.card import HALF, ModelInfo
from cnn_jax.models.images import takes_images

# Table 1: width, blocks, stride of each stage.
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


def scaled(channels: int, width: float) -> int:
    """`channels * width`, rounded to a multiple of 8 but never below 90% of it, as the authors' code does."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * exact else rounded + 8


def strides(stem: str, stages: tuple[int, ...], output_stride: int) -> tuple[int, list[tuple[int, int, int]]]:
    """The stem's stride, and of each stage what stage_strides says; "cifar" leaves out the first two halvings."""
    first = 2
    if stem == "cifar":
        halving = stages.index(2)
        first, stages = 1, (*stages[:halving], 1, *stages[halving + 1 :])
    return first, [*stage_strides(stages, first, output_stride)]


def pads(x: jax.Array, size: int, stride: int, tf_padding: bool, dilation: int = 1) -> Padding:
    """Padding of a layer on `x`: as TensorFlow pads, or symmetric, which without a stride is the same."""
    return same_padding(x, size, stride) if tf_padding and stride > 1 else dilation * (size // 2)


class SeparableBlock(nn.Module):
    """3x3 depthwise -> 1x1 pointwise, both with batch norm and activation (v1, fig. 3 right).

    (B, H, W, C) -> (B, H', W', features). With `tf_padding` a stride pads behind the last pixel alone: TensorFlow's
    way on even maps, Keras's on all.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    se: ModuleDef | None = None
    conv: ModuleDef = ConvBN
    tf_padding: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        channels = x.shape[-1]
        padding = ((0, 1), (0, 1)) if self.tf_padding and self.stride > 1 else self.dilation
        depthwise = partial(self.conv, groups=channels, dilation=self.dilation, name="depthwise")
        x = depthwise(channels, 3, self.stride, padding)(x, train=train)
        x = self.conv(self.features, 1, name="pointwise")(x, train=train)
        return x if self.se is None else self.se(name="se")(x)


class MobileNetV1(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `width` is the paper's alpha (sec. 3.3). `stem="cifar"`, for 28 to 64 pixels, gives the stem
    and stage2 stride 1. `last` puts a 1x1 convolution to so many channels before the pool.
    `tf_padding` pads the layers with a stride as Keras does. `se_reduction` adds squeeze-and-excitation to every
    pointwise layer (1709.01507). `output_stride` 16 or 8: see stage_strides. Taps: stem, stage1
    to stage5, and final with `last`.
    """

    width: Factor = 1.0
    act: Callable = nn.relu
    last: Count | None = None
    tf_padding: bool = False
    stem: Stem = "imagenet"
    output_stride: OutputStride = 32
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.0
    remat: Remat = False
    norm: ModuleDef = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        stem_stride, plan = strides(self.stem, tuple(stride for *_, stride in STAGES), self.output_stride)
        conv = partial(ConvBN, act=self.act, norm=self.norm, dtype=self.dtype)
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        padding = pads(x, 3, stem_stride, self.tf_padding)
        x = tap(self, "stem", conv(scaled(32, self.width), 3, stem_stride, padding, name="stem")(x, train=train))
        for i, ((channels, blocks, _), (stride, *dilations)) in enumerate(zip(STAGES, plan, strict=True), start=1):
            for j in range(1, blocks + 1):
                module = SeparableBlock(
                    scaled(channels, self.width),
                    stride if j == 1 else 1,
                    dilations[j > 1],
                    se,
                    conv,
                    self.tf_padding,
                    name=f"stage{i}_block{j}",
                )
                x = call_block(module, x, train=train, remat=self.remat)
            x = tap(self, f"stage{i}", x)
        if self.last is not None:
            x = tap(self, "final", conv(self.last, 1, name="final")(x, train=train))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


v1 = partial(ModelInfo, paper="Howard et al., MobileNets (1704.04861)", year=2017, mean=HALF, std=HALF)
relu6 = partial(MobileNetV1, act=nn.relu6)
keras = partial(MobileNetV1, act=nn.relu6, dropout=1e-3, tf_padding=True, norm=partial(BatchNorm, epsilon=1e-3))

# fmt: off
VARIANTS = (
    v1("mobilenet_025", partial(MobileNetV1, 0.25), "a quarter of the width", "table 6",
       params=470_072, macs=41_030_272),
    v1("mobilenet_050", partial(MobileNetV1, 0.5), "half the width", "table 6", params=1_331_592, macs=149_497_088),
    v1("mobilenet_075", partial(MobileNetV1, 0.75), "three quarters of the width",
       "table 6", params=2_585_560, macs=325_400_448),
    v1("mobilenet_100", MobileNetV1, "version 1 with the paper's ReLU: 13 depthwise separable blocks",
       "table 1", params=4_231_976, macs=568_740_352, aliases=("mobilenet_v1",)),
    v1("mobilenetv1_100", relu6, "version 1 with ReLU6: timm's", "table 1", params=4_231_976, macs=568_740_352,
       references=("timm.mobilenetv1_100",), interpolation="bicubic"),
    v1("mobilenetv1_100h", partial(relu6, last=1024), "version 1 with ReLU6 and one more 1x1 convolution: timm's",
       "not in the paper", params=5_282_600, macs=620_120_576, references=("timm.mobilenetv1_100h",),
       interpolation="bicubic"),
    v1("mobilenetv1_125", partial(relu6, 1.25), "version 1 with ReLU6, 1.25 times the width: timm's",
       "not in the paper", params=6_270_840, macs=879_516_800, references=("timm.mobilenetv1_125",),
       interpolation="bicubic", crop=0.9),
    v1("mobilenet_025_keras", partial(keras, 0.25), "a quarter of the width: Keras's", "table 6",
       params=470_072, macs=41_030_272, references=("keras.MobileNet(alpha=0.25)",)),
    v1("mobilenet_050_keras", partial(keras, 0.5), "half the width: Keras's", "table 6",
       params=1_331_592, macs=149_497_088, references=("keras.MobileNet(alpha=0.5)",)),
    v1("mobilenet_075_keras", partial(keras, 0.75), "three quarters of the width: Keras's", "table 6",
       params=2_585_560, macs=325_400_448, references=("keras.MobileNet(alpha=0.75)",)),
    v1("mobilenet_100_keras", keras, "version 1 with ReLU6 and TensorFlow's padding: Keras's", "table 1",
       params=4_231_976, macs=568_740_352, references=("keras.MobileNet",)),
)
