"""SqueezeNet: Iandola, Han, Moskewicz, Ashraf, Dally & Keutzer, "SqueezeNet: AlexNet-level accuracy
with 50x fewer parameters and <0.5MB model size" (1602.07360).

`squeezenet1_0` is the paper's network, `squeezenet1_1` its authors' later one, of 2.4 times fewer
multiplications: a smaller first convolution, and pools one and two modules earlier. As released and
in torchvision conv1 is unpadded, the pools keep a last window that hangs over the edge (Caffe's), and
logits are means over positions of *rectified* maps; so the 111x111 maps of table 1 come of 227 pixels,
not of the 224 that it prints. The weights' initialisation is not in the paper; here it is He's, and the
released net's N(0, 0.01) in the classifier. The bypasses of sec. 6 are left out.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import Conv, call_block, global_pool, max_pool, tap
from cnn_jax.layers.options import Checked, Classes, Count, GlobalPool, Rate, Remat, Stem
from cnn_jax.models.card import ModelInfo
from cnn_jax.models.images import takes_images

# Squeeze and expand widths of fire2 to fire9 (table 1).
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class Fire(nn.Module):
    """1x1 to `squeeze` channels, then 1x1 and 3x3 side by side, each with ReLU (fig. 1).

    (B, H, W, C) -> (B, H, W, 2 * expand), `expand` channels of each size.
    """

    squeeze: int
    expand: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training
        conv = partial(Conv, dtype=self.dtype)
        x = nn.relu(conv(self.squeeze, 1, name="squeeze")(x))
        both = conv(self.expand, 1, name="expand1x1")(x), conv(self.expand, 3, 1, 1, name="expand3x3")(x)
        return nn.relu(jnp.concatenate(both, axis=-1))


class SqueezeNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits, never negative; with `num_classes=0` the mean of fire9.

    `width` and `size` are conv1's, 3x3 max pools of stride 2 follow conv1 and the modules that `pools`
    numbers. `stem="cifar"`, for 28 to 64 pixels: conv1 is 3x3 of stride 1, padded, without a pool behind
    it. Taps: conv1, fire2 to fire9.
    """

    width: Count = 96
    size: Count = 7
    pools: tuple[int, ...] = (4, 8)
    stem: Stem = "imagenet"
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.5
    remat: Remat = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        size, stride, padding = (self.size, 2, 0) if self.stem == "imagenet" else (3, 1, 1)
        pool = partial(max_pool, window=3, stride=2, ceil_mode=True)
        x = tap(self, "conv1", nn.relu(Conv(self.width, size, stride, padding, dtype=self.dtype, name="conv1")(x)))
        if self.stem == "imagenet":
            x = pool(x)
        for i, (squeeze, expand) in enumerate(FIRES, start=2):
            module = Fire(squeeze, expand, dtype=self.dtype, name=f"fire{i}")
            x = tap(self, f"fire{i}", call_block(module, x, train=train, remat=self.remat))
            if i in self.pools:
                x = pool(x)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: dropout, 1x1 convolution, ReLU, pool."""
        if self.num_classes > 0:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            head = Conv(self.num_classes, 1, kernel_init=nn.initializers.normal(0.01), dtype=self.dtype, name="head")
            x = nn.relu(head(x))
        return global_pool(x.astype(jnp.float32), self.global_pool)


iandola = partial(
    ModelInfo,
    paper="Iandola, Han, Moskewicz, Ashraf, Dally & Keutzer, SqueezeNet (1602.07360)",
    year=2016,
)

# fmt: off
VARIANTS = (
    iandola("squeezenet1_0", SqueezeNet, "eight fire modules, 7x7 in front", "table 1",
            params=1_248_424, macs=818_924_576, references=("torchvision.squeezenet1_0",)),
    iandola("squeezenet1_1", partial(SqueezeNet, 64, 3, (3, 5)), "eight fire modules, 3x3 in front, earlier pools",
            "the authors' code", params=1_235_496, macs=349_151_936, references=("torchvision.squeezenet1_1",)),
)
