"""PNASNet-5: Liu, Zoph, Neumann, Shlens et al., "Progressive Neural Architecture Search" (1712.00559).

One cell, found by search on CIFAR-10, of five sums of two operations on the outputs of the two cells before
it; with stride 2 it halves the map. Padding is TensorFlow's, as the authors' weights need. The auxiliary
classifier and ScheduledDropPath are left out; initialisation is He's.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, Conv, ConvBN, call_block, classify, max_pool, same_padding, tap
from cnn_jax.layers.options import Checked, Classes, Count, GlobalPool, ModuleDef, Rate, Remat, Stem
from cnn_jax.models.card import HALF, ModelInfo
from cnn_jax.models.images import takes_images
from cnn_jax.models.nasnet import SeparableTwice, squeezed


class Cell(nn.Module):
    """PNASNet-5's cell (fig. 1 left).

    `inputs` are the last output (B, H, W, C1) and, if there is one, that before it, (B, H or 2 H, W or 2 W, C2)
    -> (B, ceil(H / stride), ceil(W / stride), 5 * features).
    """

    features: int
    stride: int = 1
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, inputs: tuple[jax.Array, ...], *, train: bool) -> jax.Array:
        def separable(y: jax.Array, size: int, name: str, stride: int = self.stride) -> jax.Array:
            return SeparableTwice(self.features, size, stride, self.conv, self.norm, name=name)(y, train=train)

        def fitted(y: jax.Array, name: str, stride: int = 1) -> jax.Array:
            y = self.conv(self.features, 1, stride, name=f"{name}_conv")(y)
            return self.norm(name=f"{name}_norm")(y, train=train)

        current, previous = squeezed(inputs, self.features, self.conv, self.norm, train=train)
        maxima = partial(max_pool, window=3, stride=self.stride, padding=same_padding(current, 3, self.stride))
        pooled, largest = maxima(current), maxima(previous)
        if len(inputs) == 1:  # the stem's channels, which nothing has squeezed
            largest = fitted(largest, "sum1_right")
        kept = current if self.stride == 1 else fitted(nn.relu(current), "sum5_right", self.stride)
        sum3 = separable(current, 5, "sum3_left") + separable(current, 3, "sum3_right")
        return jnp.concatenate(
            [
                separable(previous, 5, "sum1_left") + largest,
                separable(current, 7, "sum2_left") + pooled,
                sum3,
                separable(sum3, 3, "sum4_left", 1) + pooled,
                separable(previous, 3, "sum5_left") + kept,
            ],
            axis=-1,
        )


class PNASNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the 20 * `features` pooled ones.

    Three stages of `cells` cells, whose sums have `features` channels, doubled by each later stage, which its
    first cell begins with stride 2. `stem`: "imagenet" (3x3 of stride 2, unpadded, and two cells of stride
    2) or "cifar" (3x3 of stride 1: for 28 to 64 pixels). Taps: stem, stem_cell1, stem_cell2, stage1 to stage3.
    """

    cells: Count
    features: Count
    stem_width: Count
    stem: Stem = "imagenet"
    num_classes: Classes = 1000
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.0
    remat: Remat = False
    norm: ModuleDef = partial(BatchNorm, epsilon=1e-3)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv, norm = partial(Conv, use_bias=False, dtype=self.dtype), partial(self.norm, dtype=self.dtype)
        cell = partial(Cell, conv=conv, norm=norm)
        call = partial(call_block, train=train, remat=self.remat)
        stride, padding = (2, 0) if self.stem == "imagenet" else (1, 1)
        stem = ConvBN(self.stem_width, 3, stride, padding, act=None, norm=self.norm, dtype=self.dtype, name="stem")
        x = tap(self, "stem", stem(x, train=train))
        before = x
        if self.stem == "imagenet":
            before = tap(self, "stem_cell1", call(cell(self.features // 4, 2, name="stem_cell1"), (x,)))
            x = tap(self, "stem_cell2", call(cell(self.features // 2, 2, name="stem_cell2"), (before, x)))
        for i in (1, 2, 3):
            for j in range(1, self.cells + 1):
                module = cell(self.features * 2 ** (i - 1), 2 if i > 1 and j == 1 else 1, name=f"stage{i}_cell{j}")
                x, before = call(module, (x, before)), x
            x = tap(self, f"stage{i}", x)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: ReLU, pool, dropout, linear layer."""
        x = nn.relu(x)
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


VARIANTS = (
    ModelInfo(
        "pnasnet5large",
        partial(PNASNet, 4, 216, 96),
        "PNASNet-5 (N = 4, F = 216)",
        "table 5",
        params=86_057_668,
        macs=24_937_395_792,
        paper="Liu, Zoph, Neumann, Shlens et al., Progressive Neural Architecture Search (1712.00559)",
        year=2017,
        input_size=(331, 331, 3),
        mean=HALF,
        std=HALF,
        interpolation="bicubic",
        crop=0.911,
        references=("timm.pnasnet5large",),
    ),
)
