"""MobileNetV3: Howard, Sandler et al., "Searching for MobileNetV3" (1905.02244).

Version 2's inverted residuals with kernels, widths and gates of a search. `mobilenet_v3_*` are
torchvision's, `mobilenetv3_*` timm's, which differ by batch norm's epsilon: 1e-3 and 1e-5. In timm a
width below 0.75 leaves the stem as it is, and none narrows the hidden layer. Both pad strided layers
symmetrically, where the authors' TensorFlow nets, and Keras's, `mobilenet_v3_*_keras`, pad on one side
only. Initialisation is He's.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, ConvBN, SqueezeExcite, call_block, classify, depth_rates, global_pool, tap
from cnn_jax.layers.options import (
    Checked,
    Classes,
    Count,
    Factor,
    GlobalPool,
    ModuleDef,
    OutputStride,
    Rate,
    Remat,
    Stem,
)
from cnn_jax.models.card import HALF, ModelInfo
from cnn_jax.models.images import takes_images
from cnn_jax.models.mobilenet import pads, scaled, strides
from cnn_jax.models.mobilenet_v2 import InvertedResidual

ACTIVATIONS = {"RE": nn.relu, "HS": nn.hard_swish}  # sec. 5.2

# Tables 1 and 2, a row for the blocks of one output width: kernel, expansion sizes, output, SE, NL, stride.
LARGE = (
    (3, (16,), 16, False, "RE", 1),
    (3, (64, 72), 24, False, "RE", 2),
    (5, (72, 120, 120), 40, True, "RE", 2),
    (3, (240, 200, 184, 184), 80, False, "HS", 2),
    (3, (480, 672), 112, True, "HS", 1),
    (5, (672, 960, 960), 160, True, "HS", 2),
)
SMALL = (
    (3, (16,), 16, True, "RE", 2),
    (3, (72, 88), 24, False, "RE", 2),
    (5, (96, 240, 240), 40, True, "HS", 2),
    (5, (120, 144), 48, True, "HS", 1),
    (5, (288, 576, 576), 96, True, "HS", 2),
)


class MobileNetV3(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the `hidden` values before them.

    `stages` is a table like LARGE. Squeeze-and-excitation has a quarter of the channels inside and a hard
    sigmoid at its end (sec. 5.3). `hidden` values, in a layer without batch norm, stand behind the pool.
    `width` scales the rest, the stem only from 0.75 on. `tf_padding` pads the layers with a stride as
    TensorFlow does. `stem="cifar"`, for 28 to 64 pixels, leaves out the first two halvings.
    `stochastic_depth` and `zero_init` act on the blocks with a shortcut; rates rise over all blocks, see
    depth_rates. `output_stride` 16 or 8: see stage_strides. Taps: stem, stage1 and so on, final, hidden.
    """

    stages: tuple[tuple[int, tuple[int, ...], int, bool, str, int], ...]
    hidden: Count
    width: Factor = 1.0
    tf_padding: bool = False
    stem: Stem = "imagenet"
    output_stride: OutputStride = 32
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.2  # sec. 6.1.1
    stochastic_depth: Rate = 0.0
    zero_init: bool = False
    remat: Remat = False
    norm: ModuleDef = partial(BatchNorm, momentum=0.99, epsilon=1e-3)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        stem_stride, plan = strides(self.stem, tuple(stride for *_, stride in self.stages), self.output_stride)
        conv = partial(ConvBN, act=nn.hard_swish, norm=self.norm, dtype=self.dtype)
        before = 16
        first = scaled(before, self.width if self.width >= 0.75 else 1.0)
        padding = pads(x, 3, stem_stride, self.tf_padding)
        x = tap(self, "stem", conv(first, 3, stem_stride, padding, name="stem")(x, train=train))
        rates = depth_rates(sum(len(sizes) for _, sizes, *_ in self.stages), self.stochastic_depth)
        for i, ((kernel, sizes, features, gated, act, _), (stride, *dilations)) in enumerate(
            zip(self.stages, plan, strict=True), start=1
        ):
            for j, size in enumerate(sizes, start=1):
                inner = scaled(x.shape[-1], size / before)
                se = partial(SqueezeExcite, hidden=scaled(inner, 1 / 4), gate=nn.hard_sigmoid, dtype=self.dtype)
                module = InvertedResidual(
                    scaled(features, self.width),
                    inner,
                    kernel,
                    stride if j == 1 else 1,
                    dilations[j > 1],
                    se if gated else None,
                    partial(conv, act=ACTIVATIONS[act]),
                    stochastic_depth=next(rates),
                    zero_init=self.zero_init,
                    tf_padding=self.tf_padding,
                    name=f"stage{i}_block{j}",
                )
                x, before = call_block(module, x, train=train, remat=self.remat), features
            x = tap(self, f"stage{i}", x)
        x = tap(self, "final", conv(scaled(6 * before, self.width), 1, name="final")(x, train=train))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, a hidden linear layer, dropout, linear layer."""
        hidden = nn.Dense(self.hidden, kernel_init=nn.initializers.he_normal(), dtype=self.dtype, name="hidden")
        x = tap(self, "hidden", nn.hard_swish(hidden(global_pool(x, self.global_pool))))
        return classify(x, self.num_classes, pool="", train=train, dropout=self.dropout, dtype=self.dtype)


Large, Small = partial(MobileNetV3, LARGE, 1280), partial(MobileNetV3, SMALL, 1024)
TimmLarge, TimmSmall = partial(Large, norm=BatchNorm), partial(Small, norm=BatchNorm)
KerasLarge, KerasSmall = partial(Large, tf_padding=True), partial(Small, tf_padding=True)

howard = partial(ModelInfo, paper="Howard, Sandler et al., Searching for MobileNetV3 (1905.02244)", year=2019)
timm = partial(howard, interpolation="bicubic")
keras = partial(howard, mean=HALF, std=HALF)

# fmt: off
VARIANTS = (
    howard("mobilenet_v3_small", Small, "11 blocks, found by search", "table 2",
           params=2_542_856, macs=56_510_400, references=("torchvision.mobilenet_v3_small",)),
    howard("mobilenet_v3_large", Large, "15 blocks, found by search", "table 1",
           params=5_483_032, macs=216_589_760, references=("torchvision.mobilenet_v3_large",)),
    timm("mobilenetv3_small_050", partial(TimmSmall, width=0.5), "11 blocks, half the width: timm's", "table 2",
         params=1_593_224, macs=24_188_688, references=("timm.mobilenetv3_small_050",)),
    timm("mobilenetv3_small_075", partial(TimmSmall, width=0.75), "11 blocks, three quarters of the width: timm's",
         "table 2", params=2_041_872, macs=43_399_344, references=("timm.mobilenetv3_small_075",)),
    timm("mobilenetv3_small_100", TimmSmall, "11 blocks, epsilon 1e-5: timm's", "table 2",
         params=2_542_856, macs=56_510_400, references=("timm.mobilenetv3_small_100",)),
    howard("mobilenetv3_large_075", partial(TimmLarge, width=0.75), "15 blocks, three quarters of the width: timm's",
           "table 1", params=3_993_528, macs=154_560_624, references=("timm.mobilenetv3_large_075",)),
    timm("mobilenetv3_large_100", TimmLarge, "15 blocks, epsilon 1e-5: timm's", "table 1",
         params=5_483_032, macs=216_589_760, references=("timm.mobilenetv3_large_100",)),
    keras("mobilenet_v3_small_075_keras", partial(KerasSmall, width=0.75),
          "11 blocks, three quarters of the width: Keras's", "table 2", params=2_041_872, macs=43_399_344,
          references=("keras.MobileNetV3Small(alpha=0.75)",)),
    keras("mobilenet_v3_small_keras", KerasSmall, "11 blocks, TensorFlow's padding: Keras's", "table 2",
          params=2_542_856, macs=56_510_400, references=("keras.MobileNetV3Small",)),
    keras("mobilenet_v3_large_075_keras", partial(KerasLarge, width=0.75),
          "15 blocks, three quarters of the width: Keras's", "table 1", params=3_993_528, macs=154_560_624,
          references=("keras.MobileNetV3Large(alpha=0.75)",)),
    keras("mobilenet_v3_large_keras", KerasLarge, "15 blocks, TensorFlow's padding: Keras's", "table 1",
          params=5_483_032, macs=216_589_760, references=("keras.MobileNetV3Large",)),
)
