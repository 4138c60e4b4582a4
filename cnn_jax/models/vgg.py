"""VGG: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(1409.1556).

`vgg11`, `vgg13`, `vgg16`, `vgg19` are configurations A, B, D and E of table 1, `vgg11_lrn` is
A-LRN and `vgg16_c` is C. The `_bn` nets add batch norm, as torchvision does, behind convolutions
that keep their bias; the paper has none.

Initialisation: the paper draws A from a normal distribution of *variance* 10^-2 and starts the
deeper nets from a trained A, then notes that Glorot's rule does without that (sec. 3.1). So
Glorot's is the default here, for all of them; `kernel_init` takes another.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import (
    BatchNorm,
    Conv,
    LocalResponseNorm,
    adaptive_avg_pool,
    call_block,
    classify,
    max_pool,
    squeeze_excite,
    tap,
)
from cnn_jax.layers.options import Checked, Classes, ModuleDef, Rate, Reduction, Remat, Stem
from cnn_jax.models.card import ModelInfo, both
from cnn_jax.models.images import takes_images

WIDTHS = (64, 128, 256, 512, 512)  # table 1
# Side of the map under fc6, width of fc6 and fc7.
STEMS = {"imagenet": (7, 4096), "cifar": (1, 512)}  # first row: table 1


def flattened(init: Callable) -> Callable:
    """`init` for a fully connected kernel (h, w, C, features): its window belongs to the fan-in alone."""

    def draw(key, shape, dtype=jnp.float32):
        return init(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)

    return draw


class Stage(nn.Module):
    """The layers between two pools: convolution, batch norm if any, ReLU, SE if any, again and again.

    (B, H, W, C) -> (B, H, W, width); `kernels` has the size of each convolution (table 1).
    """

    width: int
    kernels: tuple[int, ...]
    norm: ModuleDef | None = None
    se: ModuleDef | None = None
    kernel_init: Callable = nn.initializers.glorot_uniform()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(Conv, self.width, kernel_init=self.kernel_init, dtype=self.dtype)
        for i, size in enumerate(self.kernels, start=1):
            x = conv(size, padding=size // 2, name=f"conv{i}")(x)
            if self.norm is not None:
                x = self.norm(dtype=self.dtype, name=f"norm{i}")(x, train=train)
            x = nn.relu(x)
            if self.se is not None:
                x = self.se(name=f"se{i}")(x)
        return x


class VGG(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the values of fc7.

    `stages` has the kernel sizes of each stage. `lrn` normalises the first one's output.
    `se_reduction` adds squeeze-and-excitation to every convolution (1709.01507). Maps of other
    sizes are averaged to 7x7 before fc6, as in torchvision; with `dense` fc6 to head move over
    them and the logits of all positions are averaged (sec. 3.2). `stem="cifar"`, for 28 to 64
    pixels: pools keep partial windows, fc6 sees the mean of all positions, fc6 and fc7 are 512
    wide. Taps: stage1 to stage5, each before its pool, pool5, fc6, fc7.
    """

    stages: tuple[tuple[int, ...], ...]
    lrn: bool = False
    stem: Stem = "imagenet"
    se_reduction: Reduction = None
    num_classes: Classes = 1000
    dropout: Rate = 0.5  # sec. 3.1
    dense: bool = False
    remat: Remat = False
    kernel_init: Callable = nn.initializers.glorot_uniform()
    norm: ModuleDef | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        stage = partial(Stage, norm=self.norm, se=se, kernel_init=self.kernel_init, dtype=self.dtype)
        for i, (width, kernels) in enumerate(zip(WIDTHS, self.stages, strict=True), start=1):
            x = call_block(stage(width, kernels, name=f"stage{i}"), x, train=train, remat=self.remat)
            x = tap(self, f"stage{i}", x)
            if self.lrn and i == 1:
                x = LocalResponseNorm(name="lrn1")(x)  # sec. 2.2: with Krizhevsky's constants
            x = max_pool(x, 2, 2, ceil_mode=self.stem == "cifar")
        x = tap(self, "pool5", x)
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: fc6, fc7, linear layer."""
        side, hidden = STEMS[self.stem]
        if not self.dense:
            x = adaptive_avg_pool(x, side)

        init = flattened(self.kernel_init)
        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        x = nn.relu(Conv(hidden, side, kernel_init=init, dtype=self.dtype, name="fc6")(x))
        if not self.dense:
            x = x[:, 0, 0]
        x = drop(name="drop6")(tap(self, "fc6", x))
        x = nn.relu(nn.Dense(hidden, kernel_init=init, dtype=self.dtype, name="fc7")(x))
        return classify(
            tap(self, "fc7", x),
            self.num_classes,
            train=train,
            dropout=self.dropout,
            kernel_init=init,
            dtype=self.dtype,
        )


# Table 1, the kernels of each column between pools.
A = ((3,), (3,), (3, 3), (3, 3), (3, 3))
B = ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3))
C = ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))
D = ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
E = ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))

simonyan = partial(
    ModelInfo,
    paper="Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition (1409.1556)",
    year=2014,
    section="table 1",
)
raw = partial(simonyan, std=(1 / 255,) * 3)  # sec. 2.1: raw 0..255 values less their mean


def row(
    name: str,
    stages: tuple[tuple[int, ...], ...],
    summary: str,
    *,
    params: int,
    macs: int,
    others: tuple[str, ...] = (),
    **fields,
) -> ModelInfo:
    """A network that torchvision and timm have under the same name, and `others`."""
    references = (*both(name), *others)
    return simonyan(name, partial(VGG, stages, **fields), summary, params=params, macs=macs, references=references)


# fmt: off
VARIANTS = (
    row("vgg11", A, "configuration A: 11 layers", params=132_863_336, macs=7_609_090_048),
    raw("vgg11_lrn", partial(VGG, A, lrn=True), "configuration A-LRN: response normalisation after the first layer",
        params=132_863_336, macs=7_609_090_048),
    row("vgg13", B, "configuration B: 13 layers", params=133_047_848, macs=11_308_466_176),
    raw("vgg16_c", partial(VGG, C), "configuration C: 16 layers, three of them 1x1",
        params=133_638_952, macs=11_770_888_192),
    row("vgg16", D, "configuration D: 16 layers", params=138_357_544, macs=15_470_264_320,
        others=("keras.VGG16",)),
    row("vgg19", E, "configuration E: 19 layers", params=143_667_240, macs=19_632_062_464, others=("keras.VGG19",)),
    row("vgg11_bn", A, "configuration A with batch norm", params=132_868_840, macs=7_609_090_048, norm=BatchNorm),
    row("vgg13_bn", B, "configuration B with batch norm", params=133_053_736, macs=11_308_466_176, norm=BatchNorm),
    row("vgg16_bn", D, "configuration D with batch norm", params=138_365_992, macs=15_470_264_320, norm=BatchNorm),
    row("vgg19_bn", E, "configuration E with batch norm", params=143_678_248, macs=19_632_062_464, norm=BatchNorm),
)
