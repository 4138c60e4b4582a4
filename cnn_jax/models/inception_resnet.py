"""Inception-ResNet: Szegedy, Ioffe, Vanhoucke & Alemi, "Inception-v4, Inception-ResNet and the Impact
of Residual Connections on Learning" (1602.07261), sec. 3.2 and 3.3.

`inception_resnet_v2` is that of the published weights (TF-slim's, as timm carries it): 10, 20 and 10
blocks with the stem of Inception v3, and its own widths. `inception_resnet_v2_fig15` is the paper's of
that name: 5, 10 and 5 blocks with the stem of v4; where fig. 17 and 19 print 1154 and 2048 channels, which
no sum with theirs can have, it has the 1152 and 2144 that fig. 7 and 18 make. `inception_resnet_v1` is
FaceNet's by David Sandberg, as facenet_pytorch carries it: fig. 15 with a 512-d embedding and a sixth
block C; FaceNet's own paper (1503.03832) has no such net. In the nets with weights the last block C is neither
scaled nor activated.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import (
    BatchNorm,
    Chain,
    Conv,
    ConvBN,
    Inception,
    Unit,
    avg_pool,
    branches,
    call_block,
    classify,
    depth_rates,
    drop_branch,
    global_pool,
    max_pool,
    squeeze_excite,
    tap,
)
from cnn_jax.layers.options import Checked, Classes, GlobalPool, ModuleDef, Rate, Reduction, Remat, Stem
from cnn_jax.models.card import HALF, ModelInfo
from cnn_jax.models.images import takes_images
from cnn_jax.models.inception_v4 import stem_modules


class Stage(NamedTuple):
    """`count` residual blocks of these branches, or with count 0 one plain module.

    `bare`: the last block is neither scaled nor activated, as in the released nets.
    """

    name: str
    chains: tuple[Chain, ...]
    count: int = 0
    scale: float = 1.0
    bare: bool = False


def double(a: int, b: int, c: int) -> Chain:
    """1x1 -> 3x3 -> 3x3."""
    return Unit("double_reduce", a), Unit("double1", b, 3), Unit("double2", c, 3)


def seven(a: int, b: int, c: int) -> Chain:
    """1x1 -> 1x7 -> 7x1."""
    return Unit("seven_reduce", a), Unit("seven_row", b, (1, 7)), Unit("seven_column", c, (7, 1))


def three(a: int, b: int, c: int) -> Chain:
    """1x1 -> 1x3 -> 3x1."""
    return Unit("three_reduce", a), Unit("three_row", b, (1, 3)), Unit("three_column", c, (3, 1))


def reduction_a(a: int, b: int, c: int, padding: int) -> tuple[Chain, ...]:
    """Fig. 7 with k, l, m = a, b, c and n = 384."""
    half = partial(Unit, size=3, stride=2, padding=padding)
    return (
        (half("three", 384),),
        (Unit("double_reduce", a), Unit("double1", b, 3), half("double2", c)),
        (partial(max_pool, window=3, stride=2, padding=padding),),
    )


def reduction_b(narrow: int, a: int, b: int, padding: int) -> tuple[Chain, ...]:
    """Fig. 13 and 18."""
    half = partial(Unit, size=3, stride=2, padding=padding)
    return (
        (Unit("three_wide_reduce", 256), half("three_wide", 384)),
        (Unit("three_narrow_reduce", 256), half("three_narrow", narrow)),
        (Unit("double_reduce", 256), Unit("double1", a, 3), half("double2", b)),
        (partial(max_pool, window=3, stride=2, padding=padding),),
    )


def stages_v1(padding: int) -> tuple[Stage, ...]:
    """Fig. 10 to 13; `padding` is that of the reductions. Scales are Sandberg's (sec. 3.3: 0.1 to 0.3)."""
    block35 = (Unit("one", 32),), (Unit("three_reduce", 32), Unit("three", 32, 3)), double(32, 32, 32)
    return (
        Stage("block35", block35, 5, 0.17),
        Stage("mixed_6a", reduction_a(192, 192, 256, padding)),
        Stage("block17", ((Unit("one", 128),), seven(128, 128, 128)), 10, 0.10),
        Stage("mixed_7a", reduction_b(256, 256, 256, padding)),
        Stage("block8", ((Unit("one", 192),), three(192, 192, 192)), 6, 0.20, bare=True),
    )


def stages_v2(padding: int, counts: tuple[int, int, int], *, bare: bool) -> tuple[Stage, ...]:
    """Fig. 16 to 19; `padding` is that of the reductions, `counts` are of blocks A, B and C."""
    a, b, c = counts
    block35 = (Unit("one", 32),), (Unit("three_reduce", 32), Unit("three", 32, 3)), double(32, 48, 64)
    return (
        Stage("block35", block35, a, 0.17),
        Stage("mixed_6a", reduction_a(256, 256, 384, padding)),
        Stage("block17", ((Unit("one", 192),), seven(128, 160, 192)), b, 0.10),
        Stage("mixed_7a", reduction_b(288, 288, 320, padding)),
        Stage("block8", ((Unit("one", 192),), three(192, 224, 256)), c, 0.20, bare),
    )


def released_v2(padding: int) -> tuple[Stage, ...]:
    """A module of Inception v3's kind in front, which fig. 15 does not have, and twice its blocks."""
    average = partial(avg_pool, window=3, stride=1, padding=1, count_include_pad=False)
    entry = (
        (Unit("one", 96),),
        (Unit("five_reduce", 48), Unit("five", 64, 5)),
        double(64, 96, 96),
        (average, Unit("pool_proj", 64)),
    )
    return Stage("mixed_5b", entry), *stages_v2(padding, (10, 20, 10), bare=True)


def printed_v2(padding: int) -> tuple[Stage, ...]:
    """Fig. 15 with the stem of fig. 3 from its first fork on; scales are the released net's (sec. 3.3: 0.1 to 0.3)."""
    stem = (Stage(name, chains) for name, chains in stem_modules(padding).items())
    return *stem, *stages_v2(padding, (5, 10, 5), bare=False)


class ResidualInception(nn.Module):
    """relu(x + scale * project(branches(x))), (B, H, W, C) -> (B, H, W, C) (sec. 3.2, fig. 20).

    The projection is a 1x1 convolution with bias, without norm or activation. `stochastic_depth` is
    the rate of drop_branch.
    """

    chains: tuple[Chain, ...]
    scale: float
    act: Callable | None = nn.relu
    stochastic_depth: Rate = 0.0
    se: ModuleDef | None = None
    conv: ModuleDef = ConvBN
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = branches(x, self.chains, self.conv, train=train)
        y = Conv(x.shape[-1], 1, dtype=self.dtype, name="project")(y)
        if self.se is not None:
            y = self.se(name="se")(y)
        y = x + self.scale * drop_branch(y, self.stochastic_depth, train=train)
        return y if self.act is None else self.act(y)


class InceptionResNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the features.

    `stages(padding)` are the modules after the stem, whose last layer is a convolution to `entry`
    channels, a max pool where that is 0, or its third convolution where it is None. After the stages
    `width` gives a last 1x1, and `embedding` a linear layer with batch norm, and `dropout` acts before it
    and not before the classifier: then `num_classes=0` gives this embedding, before any L2 normalisation.
    `stem`: "imagenet", or "cifar", whose first convolution has stride 1 and where everything is padded (for
    28 to 64 pixels). `se_reduction` gates every module, the residual ones before the addition (1709.01507,
    fig. 2 and 3). `stochastic_depth` is the last residual block's rate, see depth_rates. Taps: conv_2b,
    conv_4a, every stage, and conv_7b or embedding.
    """

    stages: Callable[[int], tuple[Stage, ...]]
    entry: int | None = 0
    width: int = 0
    embedding: int = 0
    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.2  # fig. 15: keep 0.8
    stochastic_depth: Rate = 0.0
    remat: Remat = False
    norm: ModuleDef = partial(BatchNorm, epsilon=1e-3)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(ConvBN, norm=self.norm, dtype=self.dtype)
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        stride, padding = (1, 1) if self.stem == "cifar" else (2, 0)
        x = conv(32, 3, stride, padding, name="conv_1a")(x, train=train)
        x = conv(32, 3, 1, padding, name="conv_2a")(x, train=train)
        x = tap(self, "conv_2b", conv(64, 3, 1, 1, name="conv_2b")(x, train=train))
        if self.entry is not None:
            x = max_pool(x, 3, 2, padding)
            x = conv(80, 1, name="conv_3b")(x, train=train)
            x = tap(self, "conv_4a", conv(192, 3, 1, padding, name="conv_4a")(x, train=train))
            x = (
                conv(self.entry, 3, 2, padding, name="conv_4b")(x, train=train)
                if self.entry
                else max_pool(x, 3, 2, padding)
            )

        residual = partial(ResidualInception, se=se, conv=conv, dtype=self.dtype)
        stages = self.stages(padding)
        rates = depth_rates(sum(stage.count for stage in stages), self.stochastic_depth)
        for stage in stages:
            if not stage.count:
                x = call_block(Inception(stage.chains, se, conv, name=stage.name), x, train=train, remat=self.remat)
            for j in range(1, stage.count + 1):
                bare = stage.bare and j == stage.count
                scale, act = (1.0, None) if bare else (stage.scale, nn.relu)
                block = residual(stage.chains, scale, act, next(rates), name=f"{stage.name}_{j}")
                x = call_block(block, x, train=train, remat=self.remat)
            x = tap(self, stage.name, x)
        if self.width:
            x = tap(self, "conv_7b", conv(self.width, 1, name="conv_7b")(x, train=train))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, embedding, dropout, linear layer, as far as it has them."""
        x, dropout = global_pool(x, self.global_pool), self.dropout
        if self.embedding:
            x, dropout = nn.Dropout(dropout, deterministic=not train)(x), 0.0
            x = nn.Dense(self.embedding, use_bias=False, dtype=self.dtype, name="embed")(x)
            x = tap(self, "embedding", self.norm(dtype=self.dtype, name="embed_norm")(x, train=train))
        return classify(x, self.num_classes, pool="", train=train, dropout=dropout, dtype=self.dtype)


szegedy = partial(
    ModelInfo,
    paper="Szegedy, Ioffe, Vanhoucke & Alemi, Inception-v4, Inception-ResNet (1602.07261)",
    year=2016,
    mean=HALF,
)

# fmt: off
VARIANTS = (
    szegedy("inception_resnet_v1",
            partial(InceptionResNet, stages_v1, entry=256, embedding=512, num_classes=8631, dropout=0.6),
            "FaceNet's: a 512-d embedding of faces, with a classifier of VGGFace2's 8631 identities",
            "sec. 3.2, fig. 15", params=27_910_327, macs=1_422_081_376, input_size=(160, 160, 3),
            std=(128 / 255, 128 / 255, 128 / 255), crop=1.0, num_classes=8631,
            references=("facenet_pytorch.InceptionResnetV1",)),
    szegedy("inception_resnet_v2", partial(InceptionResNet, released_v2, width=1536),
            "residual Inception modules, as released; images in [-1, 1]",
            "sec. 3.2, fig. 15", params=55_843_464, macs=13_155_794_016, input_size=(299, 299, 3), std=HALF,
            interpolation="bicubic", crop=0.8975, references=("timm.inception_resnet_v2", "keras.InceptionResNetV2")),
    szegedy("inception_resnet_v2_fig15", partial(InceptionResNet, printed_v2, entry=None),
            "the paper's schema: Inception-v4's stem and half of the released blocks; images in [-1, 1]",
            "sec. 3.2, fig. 3 and 15 to 19", params=32_433_928, macs=9_257_953_632, input_size=(299, 299, 3), std=HALF,
            interpolation="bicubic", crop=0.8975),
)
