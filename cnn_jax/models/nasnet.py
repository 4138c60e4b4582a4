"""NASNet-A: Zoph, Vasudevan, Shlens & Le, "Learning Transferable Architectures for Scalable Image
Recognition" (1707.07012).

Two cells, found by search on CIFAR-10, each of five sums of two operations, see the outputs of the two
cells before them. Padding is TensorFlow's, as the authors' weights need. `nasnetalarge` is timm's port, whose
strided average pools count the zeros of their padding, unlike the authors'; `nasnetamobile` is that of
Cadene's pretrained-models, which follows them. In Keras's, `*_keras`, maxima see these zeros too. The
auxiliary classifier and ScheduledDropPath (sec. 3.1) are left out; initialisation is He's.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import (
    BatchNorm,
    Conv,
    ConvBN,
    avg_pool,
    call_block,
    classify,
    max_pool,
    same_padding,
    tap,
)
from cnn_jax.layers.options import Checked, Classes, Count, GlobalPool, ModuleDef, Rate, Remat, Stem
from cnn_jax.models.card import HALF, ModelInfo
from cnn_jax.models.images import takes_images

Zeros = Literal["none", "average", "all"]


class SeparableTwice(nn.Module):
    """ReLU -> depthwise -> 1x1 -> batch norm, twice, the first with the stride (app. A.4).

    (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), features).
    """

    features: int
    kernel_size: int
    stride: int = 1
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        size = self.kernel_size
        for i, stride in enumerate((self.stride, 1), start=1):
            x, channels = nn.relu(x), x.shape[-1]
            x = self.conv(channels, size, stride, same_padding(x, size, stride), channels, name=f"depthwise{i}")(x)
            x = self.conv(self.features, 1, name=f"pointwise{i}")(x)
            x = self.norm(name=f"norm{i}")(x, train=train)
        return x


class Squeeze(nn.Module):
    """ReLU -> 1x1 -> batch norm, (B, H, W, C) -> (B, H, W, features), what each cell does to its inputs.

    With `stride` 2 half of the features see the even rows and columns, the others the odd ones, so that a
    larger map of an earlier cell fits without losing pixels: (B, ceil(H / 2), ceil(W / 2), features).
    """

    features: int
    stride: int = 1
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.relu(x)
        if self.stride == 1:
            x = self.conv(self.features, 1, name="conv")(x)
        else:
            odd = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1::2, 1::2]
            halves = (("even", x[:, ::2, ::2]), ("odd", odd))
            x = jnp.concatenate([self.conv(self.features // 2, 1, name=name)(half) for name, half in halves], axis=-1)
        return self.norm(name="norm")(x, train=train)


def squeezed(
    inputs: tuple[jax.Array, ...], features: int, conv: ModuleDef, norm: ModuleDef, *, train: bool
) -> tuple[jax.Array, jax.Array]:
    """The last output and the one before it, of `features` channels and the last one's size.

    Without one before it the last stands for both, raw. To be called inside a compact cell.
    """
    last, *before = inputs
    current = Squeeze(features, 1, conv, norm, name="current")(last, train=train)
    if not before:
        return current, last
    stride = 1 if before[0].shape[1] == last.shape[1] else 2
    return current, Squeeze(features, stride, conv, norm, name="previous")(before[0], train=train)


class NormalCell(nn.Module):
    """The cell that keeps the map's size (fig. 4 left).

    `inputs` are the last output (B, H, W, C1) and the one before it, (B, H or 2 H, W or 2 W, C2)
    -> (B, H, W, 6 * features).
    """

    features: int
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, inputs: tuple[jax.Array, ...], *, train: bool) -> jax.Array:
        def separable(y: jax.Array, size: int, name: str) -> jax.Array:
            return SeparableTwice(self.features, size, 1, self.conv, self.norm, name=name)(y, train=train)

        average = partial(avg_pool, window=3, stride=1, padding=1, count_include_pad=False)
        current, previous = squeezed(inputs, self.features, self.conv, self.norm, train=train)
        return jnp.concatenate(
            [
                previous,
                separable(current, 5, "sum1_left") + separable(previous, 3, "sum1_right"),
                separable(previous, 5, "sum2_left") + separable(previous, 3, "sum2_right"),
                average(current) + previous,
                average(previous) + average(previous),
                separable(current, 3, "sum5_left") + current,
            ],
            axis=-1,
        )


class ReductionCell(nn.Module):
    """The cell that halves the map (fig. 4 right): inputs as NormalCell's -> (B, H / 2, W / 2, 4 * features).

    `zeros`: which of the strided pools see the zeros of their padding.
    """

    features: int
    zeros: Zeros = "none"
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, inputs: tuple[jax.Array, ...], *, train: bool) -> jax.Array:
        def separable(y: jax.Array, size: int, stride: int, name: str) -> jax.Array:
            return SeparableTwice(self.features, size, stride, self.conv, self.norm, name=name)(y, train=train)

        current, previous = squeezed(inputs, self.features, self.conv, self.norm, train=train)
        pooled, pads = current, same_padding(current, 3, 2)
        if self.zeros == "all":
            pooled, pads = jnp.pad(current, ((0, 0), *pads, (0, 0))), 0
        averages = avg_pool(pooled, 3, 2, pads, count_include_pad=self.zeros == "average")
        maxima = max_pool(pooled, 3, 2, pads)
        sum1 = separable(current, 5, 2, "sum1_left") + separable(previous, 7, 2, "sum1_right")
        sum2 = maxima + separable(previous, 7, 2, "sum2_right")
        sum3 = averages + separable(previous, 5, 2, "sum3_right")
        sum4 = avg_pool(sum1, 3, 1, 1, count_include_pad=False) + sum2
        sum5 = separable(sum1, 3, 1, "sum5_left") + maxima
        return jnp.concatenate([sum2, sum3, sum4, sum5], axis=-1)


class NASNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the 24 * `features` pooled ones.

    `cells` normal cells in each of three stages, whose sums have `features` channels, doubled by the
    reduction cell before each later stage. `stem`: "imagenet" (3x3 of stride 2, unpadded, and two reduction
    cells, app. A.7) or "cifar" (3x3 of stride 1: for 28 to 64 pixels). With `skip_reduction` the first cell
    behind a reduction sees, as the one before, what the reduction did. `zeros`: see
    ReductionCell. Taps: stem, stem_cell1, stem_cell2, stage1 to stage3.
    """

    cells: Count
    features: Count
    stem_width: Count
    skip_reduction: bool = False
    zeros: Zeros = "none"
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
        parts = {"conv": partial(Conv, use_bias=False, dtype=self.dtype), "norm": partial(self.norm, dtype=self.dtype)}
        normal, reduction = partial(NormalCell, **parts), partial(ReductionCell, zeros=self.zeros, **parts)
        call = partial(call_block, train=train, remat=self.remat)
        stride, padding = (2, 0) if self.stem == "imagenet" else (1, 1)
        stem = ConvBN(self.stem_width, 3, stride, padding, act=None, norm=self.norm, dtype=self.dtype, name="stem")
        x = tap(self, "stem", stem(x, train=train))
        before = x
        if self.stem == "imagenet":
            before = tap(self, "stem_cell1", call(reduction(self.features // 4, name="stem_cell1"), (x,)))
            x = tap(self, "stem_cell2", call(reduction(self.features // 2, name="stem_cell2"), (before, x)))
        for i in (1, 2, 3):
            features = self.features * 2 ** (i - 1)
            if i > 1:
                reduced = call(reduction(features, name=f"stage{i}_reduce"), (x, before))
                x, before = reduced, before if self.skip_reduction else x
            for j in range(1, self.cells + 1):
                cell = normal(features, name=f"stage{i}_cell{j}")
                x, before = call(cell, (x, before)), x
            x = tap(self, f"stage{i}", x)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: ReLU, pool, dropout, linear layer."""
        x = nn.relu(x)
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


zoph = partial(
    ModelInfo,
    paper="Zoph, Vasudevan, Shlens & Le, Learning Transferable Architectures (1707.07012)",
    year=2017,
    section="table 2",
    mean=HALF,
    std=HALF,
)

# fmt: off
VARIANTS = (
    zoph("nasnetamobile", partial(NASNet, 4, 44, 32, dropout=0.5), "NASNet-A (4 @ 1056)",
         params=5_289_978, macs=563_638_816, references=("pretrainedmodels.nasnetamobile",), section="table 3"),
    zoph("nasnetalarge", partial(NASNet, 6, 168, 96, True, "average"), "NASNet-A (6 @ 4032)",
         params=88_753_150, macs=23_783_414_658, references=("timm.nasnetalarge",), input_size=(331, 331, 3),
         interpolation="bicubic", crop=0.911),
    zoph("nasnetamobile_keras", partial(NASNet, 4, 44, 32, zeros="all"), "NASNet-A (4 @ 1056), pools as in Keras",
         params=5_289_978, macs=563_638_816, references=("keras.NASNetMobile",), section="table 3"),
    zoph("nasnetalarge_keras", partial(NASNet, 6, 168, 96, True, "all"), "NASNet-A (6 @ 4032), pools as in Keras",
         params=88_753_150, macs=23_783_414_658, references=("keras.NASNetLarge",), input_size=(331, 331, 3)),
)
