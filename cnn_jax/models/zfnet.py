"""ZFNet: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks" (1311.2901).

What the paper leaves open: paddings (1 on conv1 and the first two pools give the sizes of fig. 3),
the constants of the contrast normalisation (Krizhevsky's, whose network this one revises), and the
distribution of weights "initialized to 10^-2" (normal, of that standard deviation). The rescaling
of filters whose RMS exceeds 0.1 (sec. 3) belongs to training and is not done here.

`zfnet_512` is the wider net of table 2, "layers 3,4,5: 512,1024,512 maps". The winner of
ILSVRC-2013, Clarifai, published no architecture and is neither.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import Conv, LocalResponseNorm, adaptive_avg_pool, classify, max_pool, tap
from cnn_jax.layers.options import Checked, Classes, Rate, Stem
from cnn_jax.models.card import ModelInfo
from cnn_jax.models.images import takes_images

# Kernel, stride and padding of conv1, padding of conv2, side of the map under fc6, width of fc6 and fc7.
STEMS = {"imagenet": (7, 2, 1, 0, 6, 4096), "cifar": (3, 1, 1, 2, 1, 1024)}  # first row: fig. 3
INIT = nn.initializers.normal(0.01)  # sec. 3; biases 0


class ZFNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the values of fc7.

    `widths` are the maps of conv1 to conv5. Maps of other sizes are averaged to 6x6 before fc6;
    with `dense` fc6 to head move over them and the logits of all positions are averaged.
    `stem="cifar"`, for 28 to 64 pixels: conv1 is 3x3 of stride 1, fc6 sees 1x1 maps, fc6 and fc7
    are 1024 wide. Taps: conv1 to conv5, pool5, fc6, fc7.
    """

    widths: tuple[int, ...] = (96, 256, 384, 384, 256)  # fig. 3
    stem: Stem = "imagenet"
    num_classes: Classes = 1000
    dropout: Rate = 0.5  # sec. 3
    dense: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        size1, stride1, padding1, padding2, *_ = STEMS[self.stem]
        conv = partial(Conv, kernel_init=INIT, dtype=self.dtype)
        geometry = ((size1, stride1, padding1), (5, 2, padding2), (3, 1, 1), (3, 1, 1), (3, 1, 1))

        for i, (features, (size, stride, padding)) in enumerate(zip(self.widths, geometry, strict=True), start=1):
            x = tap(self, f"conv{i}", nn.relu(conv(features, size, stride, padding, name=f"conv{i}")(x)))
            if i in (1, 2):  # fig. 3: pooled, then normalised across maps
                x = LocalResponseNorm(name=f"lrn{i}")(max_pool(x, 3, 2, 1))
        x = tap(self, "pool5", max_pool(x, 3, 2))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: fc6, fc7, linear layer."""
        *_, side, hidden = STEMS[self.stem]
        if not self.dense:
            x = adaptive_avg_pool(x, side)

        x = nn.relu(Conv(hidden, side, kernel_init=INIT, dtype=self.dtype, name="fc6")(x))
        x = tap(self, "fc6", x if self.dense else x[:, 0, 0])
        x = nn.Dropout(self.dropout, deterministic=not train, name="drop6")(x)
        x = tap(self, "fc7", nn.relu(nn.Dense(hidden, kernel_init=INIT, dtype=self.dtype, name="fc7")(x)))
        return classify(x, self.num_classes, train=train, dropout=self.dropout, kernel_init=INIT, dtype=self.dtype)


zeiler = partial(
    ModelInfo,
    paper="Zeiler & Fergus, Visualizing and Understanding Convolutional Networks (1311.2901)",
    year=2013,
    std=(1 / 255,) * 3,  # sec. 3: raw 0..255 values less their mean
)

# fmt: off
VARIANTS = (
    zeiler("zfnet", ZFNet, "AlexNet with finer first layers and one tower",
           "fig. 3", params=62_357_608, macs=1_168_032_896),
    zeiler("zfnet_512", partial(ZFNet, (96, 256, 512, 1024, 512)), "ZFNet with 512-1024-512 maps in layers 3 to 5",
           "table 2", params=107_627_624, macs=2_476_704_896),
)
