"""Residual networks for CIFAR-10: He, Zhang, Ren & Sun, "Deep Residual Learning for Image
Recognition" (1512.03385), sec. 4.2, and ResNeXt-29 (1611.05431, sec. 5.3): resnet.py's network with three
stages of ResNeXt's blocks.

The cards' mean and std are those of the published weights (akamaster/pytorch_resnet_cifar10); the
authors subtract the mean image instead.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, ConvBN, Shortcut, call_block, classify, depth_rates, squeeze_excite, tap
from cnn_jax.layers.options import Checked, Classes, Count, GlobalPool, ModuleDef, Rate, Reduction, Remat
from cnn_jax.models.card import CIFAR_MEAN, CIFAR_STD, ModelInfo
from cnn_jax.models.images import takes_images
from cnn_jax.models.resnet import BasicBlock, ResNet, resnext, xie


class ResNetCifar(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the 64 pooled features.

    A 3x3 with 16 channels, then three stages of `blocks` basic blocks with 16, 32 and 64 channels,
    the second and third halving the image: 6 * blocks + 2 layers. `shortcut`: "A" zeros for new
    channels, as in the paper, "B" projections where the shape changes, "none" a plain net.
    `se_reduction` adds squeeze-and-excitation to every block. `stochastic_depth`, `zero_init`, `scan`:
    see ResNet. Taps: stem, stage1 to stage3.
    """

    blocks: Count
    shortcut: Literal["A", "B", "none"] = "A"
    se_reduction: Reduction = None
    num_classes: Classes = 10
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
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        block = partial(
            BasicBlock,
            conv=conv,
            shortcut=None if self.shortcut == "none" else partial(Shortcut, kind=self.shortcut),
            se=se,
        )
        x = tap(self, "stem", conv(16, 3, 1, 1, name="stem")(x, train=train))
        rates = depth_rates(3 * self.blocks, self.stochastic_depth)
        for i, width in enumerate((16, 32, 64), start=1):
            for j in range(1, (min(self.blocks, 2) if self.scan else self.blocks) + 1):
                scanned = self.blocks - 1 if self.scan and j == 2 else None
                module = block(
                    width,
                    2 if i > 1 and j == 1 else 1,
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


PlainCifar = partial(ResNetCifar, shortcut="none")

he = partial(
    ModelInfo,
    section="sec. 4.2, table 6",
    paper="He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition (1512.03385)",
    year=2015,
    input_size=(32, 32, 3),
    crop=1.0,
    num_classes=10,
)
ResNeXt29 = partial(ResNet, (3, 3, 3), stem="cifar", num_classes=10)
resnext29 = partial(
    xie,
    section="sec. 5.3, table 7",
    input_size=(32, 32, 3),
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    crop=1.0,
    num_classes=10,
)
plain = partial(he, section="sec. 4.2, fig. 6")

# fmt: off
VARIANTS = (
    plain("plain20_cifar", partial(PlainCifar, 3), "20 layers for CIFAR-10 without shortcuts",
       params=269_722, macs=40_551_040),
    plain("plain32_cifar", partial(PlainCifar, 5), "32 layers for CIFAR-10 without shortcuts",
       params=464_154, macs=68_862_592),
    plain("plain44_cifar", partial(PlainCifar, 7), "44 layers for CIFAR-10 without shortcuts",
       params=658_586, macs=97_174_144),
    plain("plain56_cifar", partial(PlainCifar, 9), "56 layers for CIFAR-10 without shortcuts",
       params=853_018, macs=125_485_696),
    plain("plain110_cifar", partial(PlainCifar, 18), "110 layers for CIFAR-10 without shortcuts",
       params=1_727_962, macs=252_887_680),
    he("plain1202_cifar", partial(PlainCifar, 200), "1202 layers for CIFAR-10 without shortcuts",
       section="not in the paper", params=19_421_274, macs=2_829_238_912),
    he("resnet20_cifar", partial(ResNetCifar, 3), "20 layers for CIFAR-10, shortcuts without parameters",
       params=269_722, macs=40_551_040, references=("akamaster.resnet20",)),
    he("resnet32_cifar", partial(ResNetCifar, 5), "32 layers for CIFAR-10, shortcuts without parameters",
       params=464_154, macs=68_862_592, references=("akamaster.resnet32",)),
    he("resnet44_cifar", partial(ResNetCifar, 7), "44 layers for CIFAR-10, shortcuts without parameters",
       params=658_586, macs=97_174_144, references=("akamaster.resnet44",)),
    he("resnet56_cifar", partial(ResNetCifar, 9), "56 layers for CIFAR-10, shortcuts without parameters",
       params=853_018, macs=125_485_696, references=("akamaster.resnet56",)),
    he("resnet110_cifar", partial(ResNetCifar, 18), "110 layers for CIFAR-10, shortcuts without parameters",
       params=1_727_962, macs=252_887_680, references=("akamaster.resnet110",)),
    he("resnet1202_cifar", partial(ResNetCifar, 200), "1202 layers for CIFAR-10, shortcuts without parameters",
       params=19_421_274, macs=2_829_238_912, references=("akamaster.resnet1202",)),
    resnext29("resnext29_32x4d_cifar", partial(ResNeXt29, resnext(32, 4)), "29 layers for CIFAR-10, 32 groups 4 wide",
       section="not in the paper", params=4_775_754, macs=774_055_936,
       references=("pytorchcv.resnext29_32x4d_cifar10",)),
    resnext29("resnext29_8x64d_cifar", partial(ResNeXt29, resnext(8, 64)), "29 layers for CIFAR-10, 8 groups 64 wide",
       params=34_426_698, macs=5_387_266_048),
    resnext29("resnext29_16x64d_cifar", partial(ResNeXt29, resnext(16, 64)),
       "29 layers for CIFAR-10, 16 groups 64 wide",
       params=68_155_210, macs=10_688_866_304, references=("pytorchcv.resnext29_16x64d_cifar10",)),
)
