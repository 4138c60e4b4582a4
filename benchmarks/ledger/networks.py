"""Networks that only the ledger trains: one that can be built with and without what a claim is about, and small ones.

The first is of the form of Krizhevsky's network for CIFAR-10 (cuda-convnet's layers-18pct: three 5x5 convolutions of
32, 32 and 64 channels, each with a 3x3 pool of stride 2, and a linear layer), on which the paper of 2012 shows what
ReLUs and response normalisation do (fig. 1, sec. 3.3). All its pools are maxima here, and ReLUs stand before them.
"""

from functools import partial
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, Conv, LocalResponseNorm, classify, max_pool
from cnn_jax.layers.options import Checked, Classes, ModuleDef, Rate, Such
from cnn_jax.models import MODELS
from cnn_jax.models.card import ModelInfo
from cnn_jax.models.densenet import DenseNet
from cnn_jax.models.images import takes_images
from cnn_jax.models.resnet import BasicBlock, Bottleneck, ResNet, resnext
from cnn_jax.models.wrn import WideResNet

Units = Annotated[int, Such("a whole number, 0 for none", lambda n: n >= 0)]


class FourLayers(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits: a stage for each of `widths`, then a linear layer.

    A stage is a convolution, batch norm if `normalized`, `act`, a max pool of stride 2 and response normalisation if
    `lrn`. `conv` is what stands for the convolution: one 5x5, two 3x3 with `act` between, one 3x3, or a depthwise
    5x5 before a 1x1. `overlapping` pools are 3x3, others 2x2. `hidden` units stand before the last layer; `dropout`
    acts on them, or on the last map.
    """

    widths: tuple[int, ...] = (32, 32, 64)
    conv: Literal["5x5", "two 3x3", "3x3", "separable"] = "5x5"
    act: Literal["relu", "tanh"] = "relu"
    overlapping: bool = True
    lrn: bool = False
    normalized: bool = False
    hidden: Units = 0
    dropout: Rate = 0.0
    norm: ModuleDef = BatchNorm
    num_classes: Classes = 10
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        act, start = (
            (nn.relu, nn.initializers.he_normal()) if self.act == "relu" else (jnp.tanh, nn.initializers.lecun_normal())
        )
        layer = partial(Conv, use_bias=not self.normalized, kernel_init=start, dtype=self.dtype)
        for i, width in enumerate(self.widths, start=1):
            if self.conv == "separable":
                x = layer(x.shape[-1], 5, padding=2, groups=x.shape[-1], name=f"depthwise{i}")(x)
                x = layer(width, 1, name=f"conv{i}")(x)
            elif self.conv == "two 3x3":
                x = layer(width, 3, padding=1, name=f"conv{i}a")(x)
                x = act(self._normed(x, f"norm{i}a", train))
                x = layer(width, 3, padding=1, name=f"conv{i}")(x)
            else:
                size = int(self.conv[0])
                x = layer(width, size, padding=size // 2, name=f"conv{i}")(x)
            x = act(self._normed(x, f"norm{i}", train))
            x = max_pool(x, 3, 2, ceil_mode=True) if self.overlapping else max_pool(x, 2)
            if self.lrn:
                x = LocalResponseNorm()(x)
        x = x.reshape(len(x), -1)
        if self.hidden:
            x = act(nn.Dense(self.hidden, kernel_init=start, dtype=self.dtype, name="fc")(x))
        return classify(x, self.num_classes, train=train, dropout=self.dropout, dtype=self.dtype)

    def _normed(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        return self.norm(dtype=self.dtype, name=name)(x, train=train) if self.normalized else x


# The form of sec. 4.2 of He 2015: three stages from 16 channels on.
Small = partial(ResNet, (3, 3, 3), stem="cifar", stem_width=16, width=16, num_classes=10)
small = partial(
    ModelInfo, section="the ledger's", paper="", year=2026, input_size=(28, 28, 1), mean=(0.286,), std=(0.353,),
    crop=1.0, num_classes=10,
)  # fmt: skip

VARIANTS = (
    small("four_layers", FourLayers, "three 5x5 and a linear layer", params=83_498, macs=8_159_360),
    small("small_resnet", partial(Small, BasicBlock), "20 layers, any shortcut", params=272_186, macs=31_021_952),
    small("small_bottleneck", partial(Small, Bottleneck), "29 layers", params=312_826, macs=35_840_768),
    small("small_resnext", partial(Small, resnext(4, 24)), "29 layers of 4 groups", params=309_002, macs=36_455_424),
    small(
        "small_densenet",
        partial(DenseNet, (8, 8, 8), growth=12, stem="cifar", num_classes=10),
        "52 layers",
        params=264_154,
        macs=80_680_044,
    ),
    small("thin_wrn", partial(WideResNet, 4, 1), "WRN-28-1", params=369_210, macs=41_859_968),
    small("wide_wrn", partial(WideResNet, 1, 2), "WRN-10-2", params=303_418, macs=33_832_448),
)


def register() -> None:
    """Makes create_model know them."""
    MODELS.update({row.name: row for row in VARIANTS})
