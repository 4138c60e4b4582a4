"""MnasNet: Tan, Chen, Pang, Vasudevan, Sandler, Howard & Le, "MnasNet: Platform-Aware Neural Architecture
Search for Mobile" (1807.11626).

`mnasnet*` are the nets without squeeze-and-excitation (the authors' "B1"), by torchvision's names;
`semnasnet*` have the gates of fig. 7 ("A1"), by timm's. All pad strided layers symmetrically, where the
authors' TensorFlow nets pad on one side only. torchvision lets running statistics follow by 0.0003 a
step, timm by 0.1, as here. Initialisation is He's, dropout torchvision's.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, ConvBN, SqueezeExcite, call_block, classify, depth_rates, tap
from cnn_jax.layers.options import Checked, Classes, Factor, GlobalPool, ModuleDef, OutputStride, Rate, Remat, Stem
from cnn_jax.models.card import ModelInfo
from cnn_jax.models.images import takes_images
from cnn_jax.models.mobilenet import scaled, strides
from cnn_jax.models.mobilenet_v2 import InvertedResidual

# Fig. 7 and the authors' code: kernel, expansion, width, blocks, stride, squeeze-and-excitation of each stage.
A1 = (
    (3, 1, 16, 1, 1, False),
    (3, 6, 24, 2, 2, False),
    (5, 3, 40, 3, 2, True),
    (3, 6, 80, 4, 2, False),
    (3, 6, 112, 2, 1, True),
    (5, 6, 160, 3, 2, True),
    (3, 6, 320, 1, 1, False),
)
B1 = (
    (3, 1, 16, 1, 1, False),
    (3, 3, 24, 3, 2, False),
    (5, 3, 40, 3, 2, False),
    (5, 6, 80, 3, 2, False),
    (3, 6, 96, 2, 1, False),
    (5, 6, 192, 4, 2, False),
    (3, 6, 320, 1, 1, False),
)


class MnasNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the 1280 pooled features.

    `stages` is a table like B1, `width` scales all but the last convolution. Squeeze-and-excitation has a
    quarter of the block's input channels inside. `stem="cifar"`, for 28 to 64 pixels, leaves out the first
    two halvings. `stochastic_depth` and `zero_init` act on the blocks with a shortcut; rates rise over all
    blocks, see depth_rates. `output_stride` 16 or 8: see stage_strides. Taps: stem, stage1 to stage7, final.
    """

    stages: tuple[tuple[int, int, int, int, int, bool], ...] = B1
    width: Factor = 1.0
    stem: Stem = "imagenet"
    output_stride: OutputStride = 32
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
        stem_stride, plan = strides(self.stem, tuple(stride for *_, stride, _ in self.stages), self.output_stride)
        conv = partial(ConvBN, norm=self.norm, dtype=self.dtype)
        x = tap(self, "stem", conv(scaled(32, self.width), 3, stem_stride, 1, name="stem")(x, train=train))
        rates = depth_rates(sum(blocks for *_, blocks, _, _ in self.stages), self.stochastic_depth)
        for i, ((kernel, expansion, features, blocks, _, gated), (stride, *dilations)) in enumerate(
            zip(self.stages, plan, strict=True), start=1
        ):
            for j in range(1, blocks + 1):
                se = partial(SqueezeExcite, hidden=x.shape[-1] // 4, dtype=self.dtype)
                module = InvertedResidual(
                    scaled(features, self.width),
                    expansion * x.shape[-1],
                    kernel,
                    stride if j == 1 else 1,
                    dilations[j > 1],
                    se if gated else None,
                    conv,
                    stochastic_depth=next(rates),
                    zero_init=self.zero_init,
                    name=f"stage{i}_block{j}",
                )
                x = call_block(module, x, train=train, remat=self.remat)
            x = tap(self, f"stage{i}", x)
        x = tap(self, "final", conv(1280, 1, name="final")(x, train=train))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


tan = partial(ModelInfo, paper="Tan, Chen, Pang, Vasudevan et al., MnasNet (1807.11626)", year=2018)
plain = partial(tan, section="table 1")
gated = partial(tan, section="fig. 7", interpolation="bicubic")
Gated = partial(MnasNet, A1)

# fmt: off
VARIANTS = (
    plain("mnasnet0_5", partial(MnasNet, width=0.5), "17 blocks, found by search; half the width",
          params=2_218_512, macs=104_455_968, references=("torchvision.mnasnet0_5", "timm.mnasnet_050")),
    plain("mnasnet0_75", partial(MnasNet, width=0.75), "17 blocks, found by search; three quarters of the width",
          params=3_170_208, macs=215_493_104, references=("torchvision.mnasnet0_75", "timm.mnasnet_075"),
          crop=224 / 232),
    plain("mnasnet1_0", MnasNet, "17 blocks, found by search",
          params=4_383_312, macs=314_415_872, references=("torchvision.mnasnet1_0", "timm.mnasnet_100")),
    plain("mnasnet1_3", partial(MnasNet, width=1.3), "17 blocks, found by search; 1.3 times the width",
          params=6_282_256, macs=526_362_432, references=("torchvision.mnasnet1_3",), crop=224 / 232),
    gated("semnasnet_075", partial(Gated, width=0.75), "16 blocks, half of them gated; three quarters of the width",
          params=2_912_278, macs=223_448_480, references=("timm.semnasnet_075",)),
    gated("semnasnet_100", Gated, "16 blocks, half of them gated",
          params=3_887_038, macs=311_579_072, references=("timm.semnasnet_100",)),
)
