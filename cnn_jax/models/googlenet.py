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
from cnn_jax.layers.conv import IntPair, Padding
from cnn_jax.layers.options import Checked, Classes, Count, GlobalPool, ModuleDef, Rate, Reduction, Remat, Stem
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


def inception(row: tuple[int, ...], kernel5: int) -> tuple[Chain, ...]:
    """A module of table 1; `kernel5` is the kernel of its 5x5 branch."""
    one, reduce3, three, reduce5, five, project = row
    pool = partial(max_pool, window=3, stride=1, padding=1)
    return (
        (Unit("one", one),),
        (Unit("three_reduce", reduce3), Unit("three", three, 3)),
        (Unit("five_reduce", reduce5), Unit("five", five, kernel5)),
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


class GoogLeNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; `num_classes=0` gives the pooled features.

    With `norm` batch normalisation stands in place of biases and of response normalisation in the stem.
    `kernel5` is the kernel of the 5x5 branches, `last_pool` that of the pool before 5a, `adaptive`: see AuxHead.
    `stem`: "imagenet" (7x7 of stride 2, max pool) or "cifar" (3x3 of stride 1, no pool: for 28 to
    64 pixels). With `train` the auxiliary heads' logits go to the collection "aux_logits", as
    ["aux1"]["logits"] and ["aux2"]["logits"]; the paper adds their losses times 0.3 (sec. 5).
    `aux_dropout` is their rate, None the paper's 0.7, or none where `dropout` is 0. `se_reduction`
    gates every module's output (1709.01507, fig. 2). Taps: conv1, conv2, inception_3a to inception_5b.
    """

    kernel5: Count = 5
    last_pool: Count = 3
    adaptive: bool = False
    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.4  # table 1
    aux: bool = True
    aux_dropout: Rate | None = None
    remat: Remat = False
    norm: ModuleDef | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.norm is None:
            conv = partial(ConvReLU, dtype=self.dtype)
            # Caffe's bvlc_googlenet: local_size 5, alpha 1e-4, beta 0.75, and k 1.
            respond = LocalResponseNorm(5, 1e-4, 0.75, 1.0, divide_by_size=True, name="lrn")
        else:
            conv = partial(ConvBN, norm=self.norm, dtype=self.dtype)
            respond = lambda x: x  # noqa: E731
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        pool = partial(max_pool, stride=2, ceil_mode=True)
        aux_rate = self.aux_dropout if self.aux_dropout is not None else 0.7 if self.dropout else 0.0  # sec. 5
        if self.stem == "imagenet":
            x = tap(self, "conv1", conv(64, 7, 2, 3, name="conv1")(x, train=train))
            x = pool(x, 3)
        else:
            x = tap(self, "conv1", conv(64, 3, 1, 1, name="conv1")(x, train=train))
        x = conv(64, 1, name="conv2_reduce")(respond(x), train=train)
        x = tap(self, "conv2", conv(192, 3, 1, 1, name="conv2")(x, train=train))
        x = pool(respond(x), 3)
        for name, row in MODULES.items():
            if name == "inception_4a":
                x = pool(x, 3)
            elif name == "inception_5a":
                x = pool(x, self.last_pool)
            module = Inception(inception(row, self.kernel5), se, conv, name=name)
            x = tap(self, name, call_block(module, x, train=train, remat=self.remat))
            if self.aux and self.num_classes and name in AUXILIARY and (train or self.is_initializing()):
                # Computed whether or not somebody collects the logits: the heads' statistics move.
                head = AuxHead(self.num_classes, aux_rate, self.adaptive, conv, self.dtype, name=AUXILIARY[name])
                head(x, train=train)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


TORCHVISION = partial(
    GoogLeNet, kernel5=3, last_pool=2, adaptive=True, dropout=0.2, norm=partial(BatchNorm, epsilon=1e-3)
)

szegedy = partial(ModelInfo, paper="Szegedy et al., Going Deeper with Convolutions (1409.4842)", year=2014)

# fmt: off
VARIANTS = (
    szegedy("googlenet", GoogLeNet, "Inception v1 as printed: biases, response normalisation, 5x5 branches",
            "table 1", params=6_998_552, macs=1_582_671_872, aux_params=6_379_728),
    szegedy("googlenet_bn", TORCHVISION, "Inception v1 with batch norm and 3x3 for 5x5, as torchvision has it",
            "table 1", params=6_624_904, macs=1_498_376_192, aux_params=6_379_984,
            mean=HALF, std=HALF, references=("torchvision.googlenet",)),
)
