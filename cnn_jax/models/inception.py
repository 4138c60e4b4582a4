"""Inception v3: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (1512.00567).

The layers are those of the published weights (TensorFlow's, as torchvision and timm carry them).
Where sec. 6 and table 1 differ (stem, widths, the reductions) the weights count. Average pools
count their padding, as the ports do and the original does not; `inception_v3_keras` is as the original there.
"""

from collections.abc import Callable
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
    adaptive_avg_pool,
    auxiliary,
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

AVG = partial(avg_pool, window=3, stride=1, padding=1)
Pool = Callable[[jax.Array], jax.Array]


ROW, COLUMN = (1, 7), (7, 1)


def factorised_5x5(project: int, average: Pool) -> tuple[Chain, ...]:
    """Fig. 5, with the 5x5 of one branch kept."""
    return (
        (Unit("one", 64),),
        (Unit("five_reduce", 48), Unit("five", 64, 5)),
        (Unit("double_reduce", 64), Unit("double1", 96, 3), Unit("double2", 96, 3)),
        (average, Unit("pool_proj", project)),
    )


def factorised_7x7(width: int, average: Pool) -> tuple[Chain, ...]:
    """Fig. 6 with n = 7: 1x7 and 7x1 in turn."""
    return (
        (Unit("one", 192),),
        (Unit("seven_reduce", width), Unit("seven_row", width, ROW), Unit("seven_column", 192, COLUMN)),
        (
            Unit("double_reduce", width),
            Unit("double_column1", width, COLUMN),
            Unit("double_row1", width, ROW),
            Unit("double_column2", width, COLUMN),
            Unit("double_row2", 192, ROW),
        ),
        (average, Unit("pool_proj", 192)),
    )


def expanded(average: Pool) -> tuple[Chain, ...]:
    """Fig. 7: 1x3 and 3x1 side by side."""
    return (
        (Unit("one", 320),),
        (Unit("three_reduce", 384), (Unit("three_row", 384, (1, 3)), Unit("three_column", 384, (3, 1)))),
        (
            Unit("double_reduce", 448),
            Unit("double", 384, 3),
            (Unit("double_row", 384, (1, 3)), Unit("double_column", 384, (3, 1))),
        ),
        (average, Unit("pool_proj", 192)),
    )


def modules(padding: int, average: Pool) -> dict[str, tuple[Chain, ...]]:
    """Every module in order; `padding` is that of the reductions (fig. 10), 0 in the published net."""
    pool = partial(max_pool, window=3, stride=2, padding=padding)
    half = partial(Unit, size=3, stride=2, padding=padding)
    return {
        "mixed_5b": factorised_5x5(32, average),
        "mixed_5c": factorised_5x5(64, average),
        "mixed_5d": factorised_5x5(64, average),
        "mixed_6a": (
            (half("three", 384),),
            (Unit("double_reduce", 64), Unit("double1", 96, 3), half("double2", 96)),
            (pool,),
        ),
        "mixed_6b": factorised_7x7(128, average),
        "mixed_6c": factorised_7x7(160, average),
        "mixed_6d": factorised_7x7(160, average),
        "mixed_6e": factorised_7x7(192, average),
        "mixed_7a": (
            (Unit("three_reduce", 192), half("three", 320)),
            (
                Unit("seven_reduce", 192),
                Unit("seven_row", 192, ROW),
                Unit("seven_column", 192, COLUMN),
                half("seven_three", 192),
            ),
            (pool,),
        ),
        "mixed_7b": expanded(average),
        "mixed_7c": expanded(average),
    }


class AuxHead(nn.Module):
    """Auxiliary classifier with batch norm (sec. 4 and 6), (B, H, W, C) -> (B, num_classes) float32 logits, also sown.

    5x5 averages of stride 3 -> 1x1 to 128 -> 5x5 to 768 -> linear. A map under 17x17, the
    published net's at 299 pixels, is averaged to 5x5 as torch.nn.AdaptiveAvgPool2d does.
    """

    num_classes: int
    conv: ModuleDef
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = avg_pool(x, 5, 3) if min(x.shape[1:3]) >= 17 else adaptive_avg_pool(x, 5)
        x = self.conv(128, 1, name="reduce")(x, train=train)
        x = self.conv(768, 5, name="conv")(x, train=train)
        logits = classify(x, self.num_classes, pool="avg", train=train, dtype=self.dtype)
        return auxiliary(self, logits)


class InceptionV3(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `stem`: "imagenet", or "cifar", where only the stem's last pool halves the image and everything
    is padded (for 28 to 64 pixels). `count_padding`: average pools count the zeros of their padding. With
    `train` the auxiliary head's logits go to the collection "aux_logits" as ["aux1"]["logits"].
    `se_reduction` gates every module's output (1709.01507, fig. 2). Taps: conv_2b, conv_4a, mixed_5b to mixed_7c.
    """

    count_padding: bool = True
    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.5  # torchvision's; the paper gives none
    aux: bool = True
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
        if self.stem == "imagenet":
            x = max_pool(x, 3, 2)
        x = conv(80, 1, name="conv_3b")(x, train=train)
        x = tap(self, "conv_4a", conv(192, 3, 1, padding, name="conv_4a")(x, train=train))
        x = max_pool(x, 3, 2, padding)
        average = partial(AVG, count_include_pad=self.count_padding)
        for name, chains in modules(padding, average).items():
            module = Inception(chains, se, conv, name=name)
            x = tap(self, name, call_block(module, x, train=train, remat=self.remat))
            if name == "mixed_6e" and self.aux and self.num_classes and (train or self.is_initializing()):
                AuxHead(self.num_classes, conv, self.dtype, name="aux1")(x, train=train)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


szegedy = partial(
    ModelInfo,
    paper="Szegedy et al., Rethinking the Inception Architecture for Computer Vision (1512.00567)",
    year=2015,
    section="sec. 6",
    params=23_834_568,
    macs=5_713_216_096,
    input_size=(299, 299, 3),
    mean=HALF,
    std=HALF,
)

# fmt: off
VARIANTS = (
    szegedy("inception_v3", InceptionV3,
            "factorised 5x5 and 7x7 convolutions, one auxiliary head; images in [-1, 1]",
            references=("torchvision.inception_v3", "timm.inception_v3"), aux_params=3_326_696),
    szegedy("inception_v3_keras", partial(InceptionV3, count_padding=False, dropout=0.0, aux=False),
            "average pools without their padding, no auxiliary head: Keras's", references=("keras.InceptionV3",)),
)
