"""Network in Network: Lin, Chen & Yan (1312.4400).

The paper prints no widths. Those here, the pools, which keep a last window that hangs over the edge as Caffe's
do, and the places of dropout are the authors' released nets': the one for CIFAR-10, whose second pool takes means
where the paper's text speaks of maxima, and the one for ImageNet, four mlpconv layers deep. As released,
logits are means over positions of *rectified* maps. The weights' initialisation is not in the paper; here it is He's.
Images are standardised per channel, for CIFAR not whitened as in sec. 4.2.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import Conv, avg_pool, call_block, global_pool, max_pool, tap
from cnn_jax.layers.options import Checked, Classes, GlobalPool, Rate, Remat, Stem
from cnn_jax.models.card import CIFAR_MEAN, CIFAR_STD, ModelInfo
from cnn_jax.models.images import takes_images

POOLS = {"max": max_pool, "avg": partial(avg_pool, count_include_pad=False)}
# Kernel, stride and padding of the first convolution.
STEMS = {"imagenet": (11, 4, 0), "cifar": (5, 1, 2)}


class MlpConv(nn.Module):
    """Convolution, then 1x1 ones, each with bias and ReLU (sec. 3.1, eq. 2).

    (B, H, W, C) -> (B, H', W', widths[-1]). Layers: conv, mlp1, mlp2, ...
    """

    widths: tuple[int, ...]
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training
        features, *others = self.widths
        conv = Conv(features, self.kernel_size, self.stride, self.padding, dtype=self.dtype, name="conv")
        x = nn.relu(conv(x))
        for i, features in enumerate(others, start=1):
            x = nn.relu(Conv(features, 1, dtype=self.dtype, name=f"mlp{i}")(x))
        return x


class NIN(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits, never negative.

    `widths` has a row for each mlpconv layer; the last 1x1 convolution of the last one is the
    `head`, averaged over all positions (sec. 3.2). `kernels` are the layers' sizes behind the
    first, `pools` ("max" or "avg", 3x3 of stride 2) stand between layers, and dropout follows the
    pools that `drops` marks. `stem`: "imagenet" (11x11 of stride 4) or "cifar" (5x5 of stride 1,
    for 28 to 64 pixels). With `num_classes=0` the mean of the head's input. Taps: mlpconv1, ...
    """

    widths: tuple[tuple[int, ...], ...]
    kernels: tuple[int, ...]
    pools: tuple[Literal["max", "avg"], ...]
    drops: tuple[bool, ...]
    stem: Stem = "imagenet"
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.5
    remat: Remat = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        geometry = (STEMS[self.stem], *((size, 1, size // 2) for size in self.kernels))
        for i, (widths, (size, stride, padding)) in enumerate(zip(self.widths, geometry, strict=True), start=1):
            module = MlpConv(widths, size, stride, padding, dtype=self.dtype, name=f"mlpconv{i}")
            x = tap(self, f"mlpconv{i}", call_block(module, x, train=train, remat=self.remat))
            if i < len(self.widths):
                x = POOLS[self.pools[i - 1]](x, 3, 2, ceil_mode=True)
                if self.drops[i - 1]:
                    x = nn.Dropout(self.dropout, deterministic=not train, name=f"drop{i}")(x)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: 1x1 convolution, ReLU, pool."""
        if self.num_classes > 0:
            x = nn.relu(Conv(self.num_classes, 1, dtype=self.dtype, name="head")(x))
        return global_pool(x.astype(jnp.float32), self.global_pool)


CIFAR = partial(
    NIN,
    widths=((192, 160, 96), (192, 192, 192), (192, 192)),
    kernels=(5, 3),
    pools=("max", "avg"),
    drops=(True, True),
    stem="cifar",
    num_classes=10,
)
IMAGENET = partial(
    NIN,
    widths=((96, 96, 96), (256, 256, 256), (384, 384, 384), (1024, 1024)),
    kernels=(5, 3, 3),
    pools=("max", "max", "max"),
    drops=(False, False, True),
)

lin = partial(ModelInfo, paper="Lin, Chen & Yan, Network In Network (1312.4400)", year=2013)

# fmt: off
VARIANTS = (
    lin("nin_cifar10", CIFAR, "three mlpconv layers for CIFAR-10",
        "sec. 4.2", params=966_986, macs=222_486_528, input_size=(32, 32, 3), num_classes=10, crop=1.0,
        mean=CIFAR_MEAN, std=CIFAR_STD),
    lin("nin_imagenet", IMAGENET, "four mlpconv layers for ImageNet",
        "the released net", params=7_595_176, macs=1_100_188_800),
)
