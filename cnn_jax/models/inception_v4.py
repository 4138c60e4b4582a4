"""Inception-v4: Szegedy, Ioffe, Vanhoucke & Alemi, "Inception-v4, Inception-ResNet and the Impact of
Residual Connections on Learning" (1602.07261), sec. 3.1, fig. 3 to 9.

The layers are those of the published weights (TF-slim's, as timm carries them), which count
where the figures differ.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import (
    BatchNorm,
    Chain,
    ConvBN,
    Inception,
    Unit,
    avg_pool,
    call_block,
    classify,
    max_pool,
    squeeze_excite,
    tap,
)
from cnn_jax.layers.options import Checked, Classes, GlobalPool, ModuleDef, Rate, Reduction, Remat, Stem
from cnn_jax.models.card import HALF, ModelInfo
from cnn_jax.models.images import takes_images

AVG = partial(avg_pool, window=3, stride=1, padding=1, count_include_pad=False)
ROW3, COLUMN3, ROW7, COLUMN7 = (1, 3), (3, 1), (1, 7), (7, 1)

INCEPTION_A = (  # fig. 4, 35x35
    (Unit("one", 96),),
    (Unit("three_reduce", 64), Unit("three", 96, 3)),
    (Unit("double_reduce", 64), Unit("double1", 96, 3), Unit("double2", 96, 3)),
    (AVG, Unit("pool_proj", 96)),
)
INCEPTION_B = (  # fig. 5, 17x17
    (Unit("one", 384),),
    (Unit("seven_reduce", 192), Unit("seven_row", 224, ROW7), Unit("seven_column", 256, COLUMN7)),
    (
        Unit("double_reduce", 192),
        Unit("double_column1", 192, COLUMN7),
        Unit("double_row1", 224, ROW7),
        Unit("double_column2", 224, COLUMN7),
        Unit("double_row2", 256, ROW7),
    ),
    (AVG, Unit("pool_proj", 128)),
)
INCEPTION_C = (  # fig. 6, 8x8
    (Unit("one", 256),),
    (Unit("three_reduce", 384), (Unit("three_row", 256, ROW3), Unit("three_column", 256, COLUMN3))),
    (
        Unit("double_reduce", 384),
        Unit("double_column1", 448, COLUMN3),
        Unit("double_row1", 512, ROW3),
        (Unit("double_row2", 256, ROW3), Unit("double_column2", 256, COLUMN3)),
    ),
    (AVG, Unit("pool_proj", 256)),
)


def stem_modules(padding: int) -> dict[str, tuple[Chain, ...]]:
    """Fig. 3 from its first fork on; `padding` is that of the layers marked V there."""
    pool = partial(max_pool, window=3, stride=2, padding=padding)
    return {
        "mixed_3a": ((pool,), (Unit("three", 96, 3, 2, padding),)),
        "mixed_4a": (
            (Unit("three_reduce", 64), Unit("three", 96, 3, 1, padding)),
            (
                Unit("seven_reduce", 64),
                Unit("seven_row", 64, ROW7),
                Unit("seven_column", 64, COLUMN7),
                Unit("seven_three", 96, 3, 1, padding),
            ),
        ),
        "mixed_5a": ((Unit("three", 192, 3, 2, padding),), (pool,)),
    }


def modules(padding: int) -> dict[str, tuple[Chain, ...]]:
    """Fig. 9 after the stem, named as the released code names it; `padding` is that of the reductions."""
    pool = partial(max_pool, window=3, stride=2, padding=padding)
    half = partial(Unit, size=3, stride=2, padding=padding)
    reduction_a = (  # fig. 7, with k, l, m, n of table 1
        (half("three", 384),),
        (Unit("double_reduce", 192), Unit("double1", 224, 3), half("double2", 256)),
        (pool,),
    )
    reduction_b = (  # fig. 8
        (Unit("three_reduce", 192), half("three", 192)),
        (
            Unit("seven_reduce", 256),
            Unit("seven_row", 256, ROW7),
            Unit("seven_column", 320, COLUMN7),
            half("seven_three", 320),
        ),
        (pool,),
    )
    return (
        {f"mixed_5{letter}": INCEPTION_A for letter in "bcde"}
        | {"mixed_6a": reduction_a}
        | {f"mixed_6{letter}": INCEPTION_B for letter in "bcdefgh"}
        | {"mixed_7a": reduction_b}
        | {f"mixed_7{letter}": INCEPTION_C for letter in "bcd"}
    )


class InceptionV4(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `stem`: "imagenet" (fig. 3), or "cifar", whose first convolution has stride 1 and where everything
    is padded (for 28 to 64 pixels). `se_reduction` gates every module after the stem
    (1709.01507, fig. 2). Taps: conv_2b, mixed_3a to mixed_7d.
    """

    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.2  # fig. 9: keep 0.8
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
        for name, chains in stem_modules(padding).items():
            module = Inception(chains, None, conv, name=name)
            x = tap(self, name, call_block(module, x, train=train, remat=self.remat))
        for name, chains in modules(padding).items():
            module = Inception(chains, se, conv, name=name)
            x = tap(self, name, call_block(module, x, train=train, remat=self.remat))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


VARIANTS = (
    ModelInfo(
        "inception_v4",
        InceptionV4,
        "pure Inception, deeper and more uniform than v3; images in [-1, 1]",
        "sec. 3.1, fig. 9",
        params=42_679_816,
        macs=12_253_974_624,
        paper="Szegedy, Ioffe, Vanhoucke & Alemi, Inception-v4, Inception-ResNet (1602.07261)",
        year=2016,
        input_size=(299, 299, 3),
        mean=HALF,
        std=HALF,
        interpolation="bicubic",
        references=("timm.inception_v4",),
    ),
)
