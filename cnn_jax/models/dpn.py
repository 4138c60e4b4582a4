"""Dual path networks: Chen, Li, Xiao, Jin, Yan & Feng, "Dual Path Networks" (1707.01629).

Each block adds to the first channels, as ResNet does, and appends a few new ones, as DenseNet does. The
paper has DPN-92 and DPN-98; the others are of the authors' code (cypw/DPNs), whose weights timm carries
over. `dpn68b` computes the function of `dpn68`, but its last convolution is kept as two. Initialisation
is He's.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, Conv, ConvBN, call_block, classify, max_pool, tap
from cnn_jax.layers.options import Checked, Classes, Count, GlobalPool, ModuleDef, Rate, Remat, Stem
from cnn_jax.models.card import IMAGENET_MEAN, IMAGENET_STD, ModelInfo
from cnn_jax.models.images import takes_images


class DualPathBlock(nn.Module):
    """BN-ReLU before each of 1x1, grouped 3x3, 1x1, added to one path and appended to the other (fig. 2d).

    (B, H, W, C) -> (B, H', W', C'): the first `features` channels are the residual path, the others the
    dense one, which grows by `growth`; with `project`, a 1x1 makes both anew and the dense one starts
    with twice that. `width` channels inside. `split`: the last 1x1 is two, one for each path.
    """

    width: int
    features: int
    growth: int
    groups: int
    stride: int = 1
    project: bool = False
    split: bool = False
    conv: ModuleDef = partial(Conv, use_bias=False)
    norm: ModuleDef = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def activated(y: jax.Array, name: str) -> jax.Array:
            return nn.relu(self.norm(name=name)(y, train=train))

        y = self.conv(self.width, 1, name="conv1")(activated(x, "norm1"))
        y = self.conv(self.width, 3, self.stride, 1, self.groups, name="conv2")(activated(y, "norm2"))
        y = activated(y, "norm3")
        if self.split:
            added, grown = self.conv(self.features, 1, name="add")(y), self.conv(self.growth, 1, name="grow")(y)
        else:
            y = self.conv(self.features + self.growth, 1, name="conv3")(y)
            added, grown = jnp.split(y, [self.features], axis=-1)
        if self.project:
            project = self.conv(self.features + 2 * self.growth, 1, self.stride, name="project")
            x = project(activated(x, "project_norm"))
        residual, dense = jnp.split(x, [self.features], axis=-1)
        return jnp.concatenate([residual + added, dense, grown], axis=-1)


class DPN(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    `stages` counts the blocks of each stage, `growths` what one of them appends. Its residual path has
    `features` channels in stage 1 and the inside of its blocks `width`, doubled by each later stage.
    `stem`: "imagenet" (7x7 of stride 2, or `stem_size`, to `stem_width` channels; max pool) or "cifar" (3x3
    of stride 1, no pool: for 28 to 64 pixels). Taps: stem, stage1 to stage4 (not yet activated), final.
    """

    stages: tuple[int, ...] = (3, 4, 20, 3)
    growths: tuple[int, ...] = (16, 32, 24, 128)
    features: Count = 256
    width: Count = 96
    groups: Count = 32
    stem_width: Count = 64
    stem_size: Count = 7
    split: bool = False
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
        norm = partial(self.norm, dtype=self.dtype)
        block = partial(
            DualPathBlock, split=self.split, conv=partial(Conv, use_bias=False, dtype=self.dtype), norm=norm
        )
        size, stride = (self.stem_size, 2) if self.stem == "imagenet" else (3, 1)
        stem = ConvBN(self.stem_width, size, stride, size // 2, norm=self.norm, dtype=self.dtype, name="stem")
        x = tap(self, "stem", stem(x, train=train))
        if self.stem == "imagenet":
            x = max_pool(x, 3, 2, 1)
        for i, (blocks, growth) in enumerate(zip(self.stages, self.growths, strict=True), start=1):
            for j in range(1, blocks + 1):
                module = block(
                    self.width * 2 ** (i - 1),
                    self.features * 2 ** (i - 1),
                    growth,
                    self.groups,
                    stride=2 if i > 1 and j == 1 else 1,
                    project=j == 1,
                    name=f"stage{i}_block{j}",
                )
                x = call_block(module, x, train=train, remat=self.remat)
            x = tap(self, f"stage{i}", x)
        x = tap(self, "final", nn.relu(norm(name="norm")(x, train=train)))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, dropout, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dropout=self.dropout, dtype=self.dtype)


Small = partial(DPN, (3, 4, 12, 3), (16, 32, 32, 64), 64, 128, stem_width=10, stem_size=3)

chen = partial(
    ModelInfo,
    paper="Chen, Li, Xiao, Jin, Yan & Feng, Dual Path Networks (1707.01629)",
    year=2017,
    section="the authors' code",
    mean=(124 / 255, 117 / 255, 104 / 255),
    std=(1 / (0.0167 * 255),) * 3,
    interpolation="bicubic",
)

# fmt: off
VARIANTS = (
    chen("dpn68", Small, "68 layers, narrow", params=12_611_602, macs=2_326_163_456, references=("timm.dpn68",)),
    chen("dpn68b", partial(Small, split=True), "68 layers, narrow, the last convolution of each block kept as two",
         params=12_611_602, macs=2_326_163_456, references=("timm.dpn68b",),
         mean=IMAGENET_MEAN, std=IMAGENET_STD, crop=0.95),
    chen("dpn92", DPN, "92 layers", section="table 1",
         params=37_668_392, macs=6_501_684_224, references=("timm.dpn92",)),
    chen("dpn98", partial(DPN, (3, 6, 20, 3), (16, 32, 32, 128), width=160, groups=40, stem_width=96), "98 layers",
         section="table 1", params=61_570_728, macs=11_671_217_152, references=("timm.dpn98",)),
    chen("dpn131", partial(DPN, (4, 8, 28, 3), (16, 32, 32, 128), width=160, groups=40, stem_width=128),
         "131 layers", params=79_254_504, macs=16_013_648_896, references=("timm.dpn131",)),
    chen("dpn107", partial(DPN, (4, 8, 20, 3), (20, 64, 64, 128), width=200, groups=50, stem_width=128),
         "107 layers", params=86_917_800, macs=18_298_764_288, references=("timm.dpn107",)),
)
