"""MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (1801.04381).

Shortcuts stand around every block that keeps its shape; the 17 blocks of table 2 are 19 "layers" in the text.
`mobilenetv2_110d` and `_120d` are timm's deeper ones. Strided layers are padded as in version 1. The paper speaks
neither of dropout nor of initialisation: the rate is torchvision's 0.2, weights are He's.
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, ConvBN, call_block, classify, depth_rates, drop_branch, squeeze_excite, tap
from cnn_jax.layers.options import (
    Checked,
    Classes,
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
from cnn_jax.models.mobilenet import pads, scaled, strides

# Table 2: expansion t, width c, blocks n, stride s of each stage.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """1x1 expand -> 3x3 depthwise -> linear 1x1 project, plus the input where the shape stays (fig. 4d).

    (B, H, W, C) -> (B, H', W', features), `inner` channels inside; no expand layer if those are C.
    `kernel_size` is the depthwise layer's, behind which `se` stands. Where the shape stays,
    `stochastic_depth` is the rate of drop_branch, and `zero_init` starts the last norm's scale at 0. `tf_padding`: see
    same_padding.
    """

    features: int
    inner: int
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    se: ModuleDef | None = None
    conv: ModuleDef = ConvBN
    stochastic_depth: Rate = 0.0
    zero_init: bool = False
    tf_padding: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        inner, size = self.inner, self.kernel_size
        around = self.stride == 1 and x.shape[-1] == self.features
        y = x if inner == x.shape[-1] else self.conv(inner, 1, name="expand")(x, train=train)
        padding = pads(y, size, self.stride, self.tf_padding, self.dilation)
        depthwise = partial(self.conv, groups=inner, dilation=self.dilation, name="depthwise")
        y = depthwise(inner, size, self.stride, padding)(y, train=train)
        if self.se is not None:
            y = self.se(name="se")(y)
        y = self.conv(self.features, 1, act=None, zero_init=self.zero_init and around, name="project")(y, train=train)
        return x + drop_branch(y, self.stochastic_depth, train=train) if around else y


class MobileNetV2(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `width` scales all layers, but the last convolution never below 1280 (sec. 4.1). `depth`
    scales the blocks of each stage; with `fixed_ends` the stem, the last convolution and the
    number of blocks of the first and last stage stay (timm's "d" nets). `tf_padding` pads the layers with a stride as
    TensorFlow does. `stem="cifar"`, for 28 to 64 pixels, gives the stem and stage2 stride 1.
    `se_reduction` adds squeeze-and-excitation behind every depthwise layer (1709.01507).
    `stochastic_depth` and `zero_init` act on the blocks with a shortcut; rates rise over all blocks, see
    depth_rates. `output_stride` 16 or 8: see stage_strides. Taps: stem, stage1 to stage7, final.
    """

    width: Factor = 1.0
    depth: Factor = 1.0
    fixed_ends: bool = False
    tf_padding: bool = False
    stem: Stem = "imagenet"
    output_stride: OutputStride = 32
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.2
    stochastic_depth: Rate = 0.0
    zero_init: bool = False
    remat: Remat = False
    norm: ModuleDef = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        stem_stride, plan = strides(self.stem, tuple(stride for *_, stride in STAGES), self.output_stride)
        conv = partial(ConvBN, act=nn.relu6, norm=self.norm, dtype=self.dtype)
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        first, last = (32, 1280) if self.fixed_ends else (scaled(32, self.width), scaled(1280, max(1.0, self.width)))
        padding = pads(x, 3, stem_stride, self.tf_padding)
        x = tap(self, "stem", conv(first, 3, stem_stride, padding, name="stem")(x, train=train))
        ends = (1, len(STAGES)) if self.fixed_ends else ()
        counts = [n if i in ends else math.ceil(n * self.depth) for i, (_, _, n, _) in enumerate(STAGES, start=1)]
        rates = depth_rates(sum(counts), self.stochastic_depth)
        for i, ((expansion, channels, *_), (stride, *dilations)) in enumerate(zip(STAGES, plan, strict=True), start=1):
            for j in range(1, counts[i - 1] + 1):
                module = InvertedResidual(
                    scaled(channels, self.width),
                    expansion * x.shape[-1],
                    stride=stride if j == 1 else 1,
                    dilation=dilations[j > 1],
                    se=se,
                    conv=conv,
                    stochastic_depth=next(rates),
                    zero_init=self.zero_init,
                    tf_padding=self.tf_padding,
                    name=f"stage{i}_block{j}",
                )
                x = call_block(module, x, train=train, remat=self.remat)
            x = tap(self, f"stage{i}", x)
        x = tap(self, "final", conv(last, 1, name="final")(x, train=train))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


v2 = partial(ModelInfo, paper="Sandler et al., MobileNetV2 (1801.04381)", year=2018, interpolation="bicubic")
tf_v2 = partial(v2, interpolation="bilinear", mean=HALF, std=HALF)
deeper = partial(MobileNetV2, fixed_ends=True)
keras = partial(MobileNetV2, dropout=0.0, tf_padding=True, norm=partial(BatchNorm, epsilon=1e-3))

# fmt: off
VARIANTS = (
    v2("mobilenetv2_035", partial(MobileNetV2, 0.35), "0.35 times the width", "fig. 5",
       params=1_677_128, macs=59_285_808,
       references=("timm.mobilenetv2_035",)),
    v2("mobilenetv2_050", partial(MobileNetV2, 0.5), "half the width", "fig. 5", params=1_968_680, macs=97_131_840,
       references=("timm.mobilenetv2_050",)),
    v2("mobilenetv2_075", partial(MobileNetV2, 0.75), "three quarters of the width",
       "fig. 5", params=2_636_424, macs=209_069_792, references=("timm.mobilenetv2_075",)),
    v2("mobilenetv2_100", MobileNetV2, "17 inverted residual blocks", "table 2", params=3_504_872, macs=300_774_272,
       references=("torchvision.mobilenet_v2", "timm.mobilenetv2_100"), interpolation="bilinear",
       aliases=("mobilenet_v2",)),
    v2("mobilenetv2_140", partial(MobileNetV2, 1.4), "1.4 times the width", "table 4",
       params=6_108_776, macs=582_195_824,
       references=("timm.mobilenetv2_140",)),
    v2("mobilenetv2_110d", partial(deeper, 1.1, 1.2), "1.1 times the width, 1.2 times the depth: timm's",
       "not in the paper", params=4_516_520, macs=430_516_080, references=("timm.mobilenetv2_110d",)),
    v2("mobilenetv2_120d", partial(deeper, 1.2, 1.4), "1.2 times the width, 1.4 times the depth: timm's",
       "not in the paper", params=5_831_144, macs=668_857_568, references=("timm.mobilenetv2_120d",)),
    tf_v2("mobilenetv2_035_keras", partial(keras, 0.35), "0.35 times the width: Keras's", "fig. 5",
          params=1_677_128, macs=59_285_808, references=("keras.MobileNetV2(alpha=0.35)",)),
    tf_v2("mobilenetv2_050_keras", partial(keras, 0.5), "half the width: Keras's", "fig. 5",
          params=1_968_680, macs=97_131_840, references=("keras.MobileNetV2(alpha=0.5)",)),
    tf_v2("mobilenetv2_075_keras", partial(keras, 0.75), "three quarters of the width: Keras's", "fig. 5",
          params=2_636_424, macs=209_069_792, references=("keras.MobileNetV2(alpha=0.75)",)),
    tf_v2("mobilenetv2_100_keras", keras, "17 inverted residual blocks, TensorFlow's padding: Keras's", "table 2",
          params=3_504_872, macs=300_774_272, references=("keras.MobileNetV2",)),
    tf_v2("mobilenetv2_130_keras", partial(keras, 1.3), "1.3 times the width: Keras's", "not in the paper",
          params=5_386_792, macs=509_374_560, references=("keras.MobileNetV2(alpha=1.3)",)),
    tf_v2("mobilenetv2_140_keras", partial(keras, 1.4), "1.4 times the width: Keras's", "table 4",
          params=6_108_776, macs=582_195_824, references=("keras.MobileNetV2(alpha=1.4)",)),
)
