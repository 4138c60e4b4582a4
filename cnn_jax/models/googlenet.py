"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions" (1409.4842).

`googlenet` is table 1 with fig. 3's two auxiliary heads and local response normalisation, for
which the paper gives no figures: they are those of Caffe's bvlc_googlenet, as are the biases and
the ceil mode of the pools. They are meant for pixels of 0 to 255 less their mean; on the card's
images of unit variance the normalisation is nearly the identity. The paper leaves preprocessing
and initialisation open too.

`googlenet_bn` is torchvision's googlenet: batch normalisation in place of biases and response
normalisation, a 3x3 where the paper has its 5x5, and 2x2 windows in the last max pool. Its
weights want images in [-1, 1], which torchvision's own `transform_input` makes.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import (
    BatchNorm,
    Chain,
    Conv,
    ConvBN,
    Inception,
    LocalResponseNorm,
    SqueezeExcite,
    Unit,
    adaptive_avg_pool,
    auxiliary,
    avg_pool,
    call_block,
    classify,
    global_avg_pool,
    max_pool,
    tap,
)
from cnn_jax.layers.conv import IntPair, Padding
from cnn_jax.layers.options import Checked, Classes, ModuleDef, Rate, Reduction, Remat, Stem
from cnn_jax.models.card import HALF, ModelInfo
from cnn_jax.models.images import takes_images

# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
MODULES = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY = {"inception_4a": "aux1", "inception_4d": "aux2"}  # sec. 5


def inception(row: tuple[int, ...], large: int) -> tuple[Chain, ...]:
    """A module of table 1; `large` is the kernel of its 5x5 branch."""
    one, reduce3, three, reduce5, five, project = row
    pool = partial(max_pool, window=3, stride=1, padding=1)
    return (
        (Unit("one", one),),
        (Unit("three_reduce", reduce3), Unit("three", three, 3)),
        (Unit("five_reduce", reduce5), Unit("five", five, large)),
        (pool, Unit("pool_proj", project)),
    )


class ConvReLU(nn.Module):
    """Convolution with bias -> ReLU, called as ConvBN is. (B, H, W, C) -> (B, H', W', features)."""

    features: int
    kernel_size: IntPair
    stride: IntPair = 1
    padding: Padding = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        conv = Conv(self.features, self.kernel_size, self.stride, self.padding, dtype=self.dtype, name="conv")
        return nn.relu(conv(x))


class AuxHead(nn.Module):
    """Auxiliary classifier (sec. 5), (B, H, W, C) -> (B, num_classes) float32 logits, also sown.

    Averages of 4x4 regions -> 1x1 to 128 -> fully connected 1024 -> dropout -> linear. The paper's
    5x5 windows of stride 3 make 4x4 of its 14x14 map; other maps, and all with `adaptive`, are
    averaged as torch.nn.AdaptiveAvgPool2d does.
    """

    num_classes: int
    dropout: float
    adaptive: bool
    conv: ModuleDef
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        regular = x.shape[1:3] == (14, 14) and not self.adaptive
        x = avg_pool(x, 5, 3) if regular else adaptive_avg_pool(x, 4)
        x = self.conv(128, 1, name="reduce")(x, train=train)
        x = nn.relu(Conv(1024, 4, dtype=self.dtype, name="fc")(x))
        return auxiliary(
            self, classify(x[:, 0, 0], self.num_classes, train=train, dropout=self.dropout, dtype=self.dtype)
        )


def googlenet_layers(
    net: "GoogLeNet | GoogLeNetBN",
    x: jax.Array,
    *,
    train: bool,
    conv: ModuleDef,
    respond: Callable[[jax.Array], jax.Array],
    large: int,
    last_pool: int,
    adaptive: bool,
) -> jax.Array:
    """The layers of `net`, which is a GoogLeNet or a GoogLeNetBN, from images to logits.

    `respond` normalises responses in the stem; `large` and `last_pool` are the kernels of the 5x5
    branches and of the pool before 5a; `adaptive`: see AuxHead.
    """
    se = None if net.se_reduction is None else partial(SqueezeExcite, net.se_reduction, dtype=net.dtype)
    pool = partial(max_pool, stride=2, ceil_mode=True)
    if net.stem == "imagenet":
        x = tap(net, "conv1", conv(64, 7, 2, 3, name="conv1")(x, train=train))
        x = pool(x, 3)
    else:
        x = tap(net, "conv1", conv(64, 3, 1, 1, name="conv1")(x, train=train))
    x = conv(64, 1, name="conv2_reduce")(respond(x), train=train)
    x = tap(net, "conv2", conv(192, 3, 1, 1, name="conv2")(x, train=train))
    x = pool(respond(x), 3)
    for name, row in MODULES.items():
        if name == "inception_4a":
            x = pool(x, 3)
        elif name == "inception_5a":
            x = pool(x, last_pool)
        module = Inception(inception(row, large), se, conv, name=name)
        x = tap(net, name, call_block(module, x, train=train, remat=net.remat))
        if net.aux and net.num_classes and name in AUXILIARY and (train or net.is_initializing()):
            # Computed whether or not somebody collects the logits: the heads' statistics move.
            rate = net.aux_dropout if net.aux_dropout is not None else 0.7 if net.dropout else 0.0  # sec. 5
            AuxHead(net.num_classes, rate, adaptive, conv, net.dtype, name=AUXILIARY[name])(x, train=train)
    return classify(global_avg_pool(x), net.num_classes, train=train, dropout=net.dropout, dtype=net.dtype)


class GoogLeNet(Checked):
    """The paper's. (B, H, W, C) -> (B, num_classes) float32 logits; `num_classes=0` gives the pooled features.

    `stem`: "imagenet" (7x7 of stride 2, max pool) or "cifar" (3x3 of stride 1, no pool: for 28 to
    64 pixels). With `train` the auxiliary heads' logits go to the collection "aux_logits", as
    ["aux1"]["logits"] and ["aux2"]["logits"]; the paper adds their losses times 0.3 (sec. 5).
    `aux_dropout` is their rate, None the paper's 0.7, or none where `dropout` is 0. `se_reduction`
    gates every module's output (1709.01507, fig. 2). Taps: conv1, conv2, inception_3a to inception_5b.
    """

    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    dropout: Rate = 0.4  # table 1
    aux: bool = True
    aux_dropout: Rate | None = None
    remat: Remat = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(ConvReLU, dtype=self.dtype)
        # Caffe's bvlc_googlenet: local_size 5, alpha 1e-4, beta 0.75, and k 1.
        respond = LocalResponseNorm(5, 1e-4, 0.75, 1.0, divide_by_size=True, name="lrn")
        return googlenet_layers(self, x, train=train, conv=conv, respond=respond, large=5, last_pool=3, adaptive=False)


class GoogLeNetBN(Checked):
    """torchvision's. Fields, stems, auxiliary heads and taps as in GoogLeNet, and `norm`."""

    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    dropout: Rate = 0.2
    aux: bool = True
    aux_dropout: Rate | None = None
    remat: Remat = False
    norm: ModuleDef = partial(BatchNorm, epsilon=1e-3)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(ConvBN, norm=self.norm, dtype=self.dtype)
        return googlenet_layers(
            self, x, train=train, conv=conv, respond=lambda x: x, large=3, last_pool=2, adaptive=True
        )


szegedy = partial(ModelInfo, paper="Szegedy et al., Going Deeper with Convolutions (1409.4842)", year=2014)

# fmt: off
VARIANTS = (
    szegedy("googlenet", GoogLeNet, "Inception v1 as printed: biases, response normalisation, 5x5 branches",
            "table 1", params=6_998_552, macs=1_582_671_872, aux_params=6_379_728),
    szegedy("googlenet_bn", GoogLeNetBN, "Inception v1 with batch norm and 3x3 for 5x5, as torchvision has it",
            "table 1", params=6_624_904, macs=1_498_376_192, aux_params=6_379_984,
            mean=HALF, std=HALF, references=("torchvision.googlenet",)),
)
