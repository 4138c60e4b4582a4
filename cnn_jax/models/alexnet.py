"""AlexNet: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks", NIPS 2012, and its one-tower successor, Krizhevsky, "One weird trick for parallelizing
convolutional neural networks" (1404.5997).

`alexnet` is the network of 2012: two towers (groups of 2), response normalisation as printed.
Departures: images are 227 pixels wide and conv1 unpadded, since the paper's 224 do not give its
55x55 maps; one device computes both towers.

`alexnet_caffe` is Caffe's bvlc_alexnet, another function of the same layers: normalisation with
k = 1 and alpha divided by 5, biases of 0.1 because 1 gave a flat loss there. Its order is the
paper's, normalisation before pooling; `caffenet`, Caffe's other replica, has it the other way round.

`alexnet_owt` is torchvision's alexnet: one tower, no normalisation, and dropout before the fully
connected layers instead of behind them. 1404.5997 gives no initialisation; here it is He's.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import Conv, LocalResponseNorm, adaptive_avg_pool, classify, max_pool, tap
from cnn_jax.layers.options import Checked, Classes, Count, ModuleDef, Rate, Stem
from cnn_jax.models.card import ModelInfo
from cnn_jax.models.images import takes_images

# Kernel and stride of conv1, side of the map under fc6, width of fc6 and fc7.
STEMS = {"imagenet": (11, 4, 6, 4096), "cifar": (5, 1, 3, 1024)}  # first row: sec. 3.5


class AlexNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the values of fc7.

    `widths` are the kernels of conv1 to conv5; conv2, conv4 and conv5 have `groups`, and with the
    hidden fully connected layers a bias that starts at `bias`. `lrn` normalises conv1 and conv2.
    `padding` is conv1's. `drop_inputs` puts dropout before fc6 and fc7 instead of behind them.
    Maps of other sizes are averaged to 6x6 before fc6; with `dense` fc6 to head move over them
    and the logits of all positions are averaged. `stem="cifar"`, for 28 to 64 pixels: conv1 is 5x5
    of stride 1, fc6 sees 3x3 maps, fc6 and fc7 are 1024 wide. Taps: conv1 to conv5, pool5, fc6, fc7.
    """

    widths: tuple[int, ...] = (96, 256, 384, 384, 256)  # sec. 3.5
    groups: Count = 2
    padding: int = 0
    lrn: ModuleDef | None = LocalResponseNorm  # sec. 3.3
    pool_first: bool = False
    drop_inputs: bool = False
    bias: float = 1.0  # sec. 5
    kernel_init: Callable = nn.initializers.normal(0.01)  # sec. 5
    hidden_init: Callable = nn.initializers.normal(0.01)
    stem: Stem = "imagenet"
    num_classes: Classes = 1000
    dropout: Rate = 0.5  # sec. 4.2
    dense: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        size1, stride1, *_ = STEMS[self.stem]
        geometry = (
            (size1, stride1, self.padding if self.stem == "imagenet" else size1 // 2),
            (5, 1, 2),
            (3, 1, 1),
            (3, 1, 1),
            (3, 1, 1),
        )
        conv = partial(Conv, kernel_init=self.kernel_init, dtype=self.dtype)
        pool = partial(max_pool, window=3, stride=2)  # overlapping (sec. 3.4)
        raised = nn.initializers.constant(self.bias)

        for i, (features, (size, stride, padding)) in enumerate(zip(self.widths, geometry, strict=True), start=1):
            layer = partial(conv, groups=self.groups, bias_init=raised) if i in (2, 4, 5) else conv
            x = nn.relu(layer(features, size, stride, padding, name=f"conv{i}")(x))
            x = tap(self, f"conv{i}", x)
            if self.lrn is not None and i in (1, 2):
                lrn = self.lrn(name=f"lrn{i}")
                x = lrn(pool(x)) if self.pool_first else pool(lrn(x))
            elif i in (1, 2, 5):
                x = pool(x)
        x = tap(self, "pool5", x)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: fc6, fc7, linear layer."""
        *_, side, hidden = STEMS[self.stem]
        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        raised = nn.initializers.constant(self.bias)
        if not self.dense:
            x = adaptive_avg_pool(x, side)

        if self.drop_inputs:
            x = drop(name="drop5")(x)
        x = Conv(hidden, side, kernel_init=self.hidden_init, bias_init=raised, dtype=self.dtype, name="fc6")(x)
        if not self.dense:
            x = x[:, 0, 0]
        x = drop(name="drop6")(tap(self, "fc6", nn.relu(x)))
        x = nn.Dense(hidden, kernel_init=self.hidden_init, bias_init=raised, dtype=self.dtype, name="fc7")(x)
        return classify(
            tap(self, "fc7", nn.relu(x)),
            self.num_classes,
            train=train,
            dropout=0.0 if self.drop_inputs else self.dropout,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
        )


CAFFE = partial(
    AlexNet,
    lrn=partial(LocalResponseNorm, k=1.0, divide_by_size=True),
    bias=0.1,
    hidden_init=nn.initializers.normal(0.005),
)
ONE_TOWER = partial(
    AlexNet,
    widths=(64, 192, 384, 256, 256),
    groups=1,
    padding=2,
    lrn=None,
    drop_inputs=True,
    bias=0.0,
    kernel_init=nn.initializers.he_normal(),
    hidden_init=nn.initializers.he_normal(),
)

of_2012 = partial(
    ModelInfo,
    paper="Krizhevsky, Sutskever & Hinton, ImageNet Classification with Deep Convolutional Neural Networks (NIPS 2012)",
    year=2012,
    input_size=(227, 227, 3),
    std=(1 / 255,) * 3,  # sec. 2: raw 0..255 values less their mean
    crop=227 / 256,
)

# fmt: off
VARIANTS = (
    of_2012("alexnet", AlexNet, "the network of 2012: two towers, response normalisation",
            "sec. 3.5", params=60_965_224, macs=724_406_816),
    of_2012("alexnet_caffe", CAFFE, "Caffe's replica: milder response normalisation, biases of 0.1",
            "sec. 3.5", params=60_965_224, macs=724_406_816),
    of_2012("caffenet", partial(CAFFE, pool_first=True), "CaffeNet: as alexnet_caffe, but normalised behind the pools",
            "sec. 3.5", params=60_965_224, macs=724_406_816),
    ModelInfo("alexnet_owt", ONE_TOWER, "one tower, no response normalisation: torchvision's alexnet",
              "sec. 5", params=61_100_840, macs=714_188_480, references=("torchvision.alexnet",), year=2014,
              paper="Krizhevsky, One weird trick for parallelizing convolutional neural networks (1404.5997)"),
)
