"""BN-Inception: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by
Reducing Internal Covariate Shift" (1502.03167), appendix, fig. 5.

The layers, and the convolutions' idle biases, are those of the published Caffe weights. These
have 11.3 million parameters; the 13.6 million of sec. 4.2 fit no published port. They take pixels of 0
to 255 less a mean, as the card's mean and std make them of an image in [0, 1]; their order, blue, green, red,
is turned when they are imported and exported: here it is red, green, blue as everywhere.
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
from cnn_jax.models.card import ModelInfo
from cnn_jax.models.images import takes_images

AVG = partial(avg_pool, window=3, stride=1, padding=1)
MAX = partial(max_pool, window=3, stride=1, padding=1)

# Fig. 5: #1x1, #3x3 reduce, #3x3, #double 3x3 reduce, #double 3x3, pool, pool proj. Without 1x1
# and projection the module halves the map.
MODULES = {
    "inception_3a": (64, 64, 64, 64, 96, AVG, 32),
    "inception_3b": (64, 64, 96, 64, 96, AVG, 64),
    "inception_3c": (0, 128, 160, 64, 96, None, 0),
    "inception_4a": (224, 64, 96, 96, 128, AVG, 128),
    "inception_4b": (192, 96, 128, 96, 128, AVG, 128),
    "inception_4c": (160, 128, 160, 128, 160, AVG, 128),
    "inception_4d": (96, 128, 192, 160, 192, AVG, 128),
    "inception_4e": (0, 128, 192, 192, 256, None, 0),
    "inception_5a": (352, 192, 320, 160, 224, AVG, 128),
    "inception_5b": (352, 192, 320, 192, 224, MAX, 128),
}


def halve(x: jax.Array) -> jax.Array:
    """3x3 max pool of stride 2, (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C).

    In ceil mode as in Caffe, whose odd maps come out a pixel smaller than the convolutions' beside
    it; here they are padded before the first pixel.
    """
    height, width = x.shape[1:3]
    return max_pool(x, 3, 2, ((height % 2, 0), (width % 2, 0)), ceil_mode=True)


def inception(one, reduce3, three, reduce_double, double, pool, project) -> tuple[Chain, ...]:
    """The branches of a row of MODULES."""
    stride = 1 if one else 2
    convs = (
        (Unit("three_reduce", reduce3), Unit("three", three, 3, stride)),
        (Unit("double_reduce", reduce_double), Unit("double1", double, 3), Unit("double2", double, 3, stride)),
    )
    return ((Unit("one", one),), *convs, (pool, Unit("pool_proj", project))) if one else (*convs, (halve,))


class BNInception(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `stem`: "imagenet" (7x7 of stride 2, max pool) or "cifar" (3x3 of stride 1, no pool: for 28 to
    64 pixels). `se_reduction` gates every module's output (1709.01507, fig. 2). Taps: conv1,
    conv2, inception_3a to inception_5b.
    """

    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.0  # sec. 4.2.1 removes it
    remat: Remat = False
    norm: ModuleDef = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(ConvBN, use_bias=True, norm=self.norm, dtype=self.dtype)
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        if self.stem == "imagenet":
            x = tap(self, "conv1", conv(64, 7, 2, 3, name="conv1")(x, train=train))
            x = max_pool(x, 3, 2, ceil_mode=True)
        else:
            x = tap(self, "conv1", conv(64, 3, 1, 1, name="conv1")(x, train=train))
        x = conv(64, 1, name="conv2_reduce")(x, train=train)
        x = tap(self, "conv2", conv(192, 3, 1, 1, name="conv2")(x, train=train))
        x = max_pool(x, 3, 2, ceil_mode=True)
        for name, row in MODULES.items():
            module = Inception(inception(*row), se, conv, name=name)
            x = tap(self, name, call_block(module, x, train=train, remat=self.remat))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


VARIANTS = (
    ModelInfo(
        "bn_inception",
        BNInception,
        "Inception with batch norm and two 3x3 for the 5x5, as in Caffe",
        "appendix, fig. 5",
        params=11_295_240,
        macs=2_032_600_064,
        paper="Ioffe & Szegedy, Batch Normalization (1502.03167)",
        year=2015,
        mean=(128 / 255, 117 / 255, 104 / 255),
        std=(1 / 255, 1 / 255, 1 / 255),
        references=("pretrainedmodels.bninception",),
        aliases=("bninception",),
    ),
)
