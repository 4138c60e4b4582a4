"""Densely connected networks: Huang, Liu, van der Maaten & Weinberger, "Densely Connected
Convolutional Networks" (1608.06993).

Every layer sees all features before it in its block and adds `growth` of its own. The nets for
ImageNet and the "BC" ones for CIFAR-10 have bottlenecks and halve the channels between blocks.
`densenet161` (k = 48) is of the authors' code, not of the paper's table 1, `densenet264d` (k = 48, three
3x3 in the stem) timm's.
"""

from functools import partial
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import (
    BatchNorm,
    Conv,
    ConvBN,
    avg_pool,
    call_block,
    classify,
    max_pool,
    squeeze_excite,
    tap,
)
from cnn_jax.layers.options import (
    Checked,
    Classes,
    Count,
    DeepStem,
    GlobalPool,
    ModuleDef,
    Rate,
    Reduction,
    Remat,
    Such,
)
from cnn_jax.models.card import CIFAR_MEAN, CIFAR_STD, ModelInfo, both
from cnn_jax.models.images import takes_images


class DenseLayer(nn.Module):
    """BN-ReLU-1x1 to 4 * growth, BN-ReLU-3x3 to growth (sec. 3); without `bottleneck` the second only.

    A tuple of (B, H, W, C_i) -> (B, H, W, growth). The parts are joined here and not before, so that
    with `remat` a block keeps each feature once, not once a layer.
    """

    growth: int
    bottleneck: bool = True
    dropout: Rate = 0.0
    se: ModuleDef | None = None
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, features: tuple[jax.Array, ...], *, train: bool) -> jax.Array:
        drop = nn.Dropout(self.dropout, deterministic=not train, name="dropout")
        x = jnp.concatenate(features, axis=-1)
        x = nn.relu(self.norm(name="norm1")(x, train=train))
        if self.bottleneck:
            x = drop(self.conv(4 * self.growth, 1, name="conv1")(x))
            x = nn.relu(self.norm(name="norm2")(x, train=train))
        x = drop(self.conv(self.growth, 3, 1, 1, name="conv2" if self.bottleneck else "conv1")(x))
        return x if self.se is None else self.se(name="se")(x)


class Transition(nn.Module):
    """BN-ReLU-1x1 -> 2x2 averages, (B, H, W, C) -> (B, H/2, W/2, features) (sec. 3)."""

    features: int
    dropout: Rate = 0.0
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.relu(self.norm(name="norm")(x, train=train))
        x = self.conv(self.features, 1, name="conv")(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return avg_pool(x, 2)


class DenseNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `stages` counts the layers of each block. `stem`: "imagenet" (7x7 of stride 2, max pool), "deep"
    (three 3x3 instead of the 7x7, 1812.01187, fig. 2b) or "cifar" (one 3x3 of stride 1 without norm,
    no pool: for 28 to 64 pixels), to `stem_width` channels or 2 * growth. A transition keeps
    floor(compression * C) channels. `dropout` acts behind every convolution but the first; the paper
    has 0.2 on CIFAR without augmentation (sec. 4.2). `se_reduction` adds squeeze-and-excitation to every
    dense layer. Taps: stem, stage1 and so on (what a block gives, not yet activated), final.
    """

    stages: tuple[int, ...]
    growth: Count = 32
    bottleneck: bool = True
    compression: Annotated[float, Such("a share above 0 and at most 1", lambda share: 0 < share <= 1)] = 0.5
    stem: DeepStem = "imagenet"
    stem_width: Count | None = None
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
        conv = partial(Conv, use_bias=False, dtype=self.dtype)
        norm = partial(self.norm, dtype=self.dtype)
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        layer = partial(
            DenseLayer,
            self.growth,
            self.bottleneck,
            self.dropout,
            se=se,
            conv=conv,
            norm=norm,
        )
        transition = partial(Transition, dropout=self.dropout, conv=conv, norm=norm)

        width = 2 * self.growth if self.stem_width is None else self.stem_width
        conv_norm = partial(ConvBN, norm=self.norm, dtype=self.dtype)
        if self.stem == "imagenet":
            x = tap(self, "stem", conv_norm(width, 7, 2, 3, name="stem")(x, train=train))
        elif self.stem == "deep":
            x = conv_norm(width // 2, 3, 2, 1, name="stem1")(x, train=train)
            x = conv_norm(width // 2, 3, 1, 1, name="stem2")(x, train=train)
            x = tap(self, "stem", conv_norm(width, 3, 1, 1, name="stem3")(x, train=train))
        else:
            x = tap(self, "stem", conv(width, 3, 1, 1, name="stem")(x))
        if self.stem != "cifar":
            x = max_pool(x, 3, 2, 1)
        for i, layers in enumerate(self.stages, start=1):
            if i > 1:
                module = transition(int(self.compression * x.shape[-1]), name=f"transition{i - 1}")
                x = call_block(module, x, train=train, remat=self.remat)
            features = (x,)
            for j in range(1, layers + 1):
                module = layer(name=f"stage{i}_layer{j}")
                features += (call_block(module, features, train=train, remat=self.remat),)
            x = tap(self, f"stage{i}", jnp.concatenate(features, axis=-1))
        x = tap(self, "final", nn.relu(norm(name="norm")(x, train=train)))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dtype=self.dtype)


CifarNet = partial(DenseNet, stem="cifar", num_classes=10)
PlainCifarNet = partial(CifarNet, bottleneck=False, compression=1.0, stem_width=16)

huang = partial(
    ModelInfo,
    paper="Huang, Liu, van der Maaten & Weinberger, Densely Connected Convolutional Networks (1608.06993)",
    year=2016,
)
cifar = partial(
    huang, section="table 2", input_size=(32, 32, 3), mean=CIFAR_MEAN, std=CIFAR_STD, crop=1.0, num_classes=10
)


# fmt: off
VARIANTS = (
    huang("densenet121", partial(DenseNet, (6, 12, 24, 16)), "121 layers, growth 32",
          "table 1", params=7_978_856, macs=2_834_161_664, references=(*both("densenet121"), "keras.DenseNet121")),
    huang("densenet169", partial(DenseNet, (6, 12, 32, 32)), "169 layers, growth 32",
          "table 1", params=14_149_480, macs=3_359_843_328, references=(*both("densenet169"), "keras.DenseNet169")),
    huang("densenet201", partial(DenseNet, (6, 12, 48, 32)), "201 layers, growth 32",
          "table 1", params=20_013_928, macs=4_291_365_888, references=(*both("densenet201"), "keras.DenseNet201")),
    huang("densenet264", partial(DenseNet, (6, 12, 64, 48)), "264 layers, growth 32",
          "table 1", params=33_337_704, macs=5_751_653_376),
    huang("densenet161", partial(DenseNet, (6, 12, 36, 24), 48), "161 layers, growth 48",
          "the authors' code", params=28_681_000, macs=7_727_907_072, references=both("densenet161")),
    huang("densenet264d", partial(DenseNet, (6, 12, 64, 48), 48, stem="deep"),
          "264 layers, growth 48, three 3x3 in the stem: timm's", "not in the paper",
          params=72_736_216, macs=13_470_266_880, references=("timm.densenet264d",), interpolation="bicubic"),
    cifar("densenet_40_12", partial(PlainCifarNet, (12,) * 3, 12), "40 layers for CIFAR-10, growth 12",
          params=1_019_722, macs=264_812_928),
    cifar("densenet_100_12", partial(PlainCifarNet, (32,) * 3, 12), "100 layers for CIFAR-10, growth 12",
          params=6_979_642, macs=1_769_516_448),
    cifar("densenet_100_24", partial(PlainCifarNet, (32,) * 3, 24), "100 layers for CIFAR-10, growth 24",
          params=27_249_082, macs=6_889_347_744),
    cifar("densenet_bc_100_12", partial(CifarNet, (16,) * 3, 12),
          "100 layers for CIFAR-10, growth 12, bottlenecks and compression",
          params=769_162, macs=287_929_692),
    cifar("densenet_bc_250_24", partial(CifarNet, (41,) * 3, 24),
          "250 layers for CIFAR-10, growth 24, bottlenecks and compression",
          params=15_324_406, macs=5_418_785_724),
    cifar("densenet_bc_190_40", partial(CifarNet, (31,) * 3, 40),
          "190 layers for CIFAR-10, growth 40, bottlenecks and compression",
          params=25_624_430, macs=9_301_945_740),
)
