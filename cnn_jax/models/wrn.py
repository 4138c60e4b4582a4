"""Wide residual networks: Zagoruyko & Komodakis, "Wide Residual Networks" (1605.07146), for CIFAR-10.

`wide_resnet50_2` and `wide_resnet101_2`, for ImageNet, stand in resnet.py: they are bottleneck nets.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.layers import BatchNorm, Conv, call_block, classify, depth_rates, squeeze_excite, tap
from cnn_jax.layers.options import Checked, Classes, Count, GlobalPool, ModuleDef, Rate, Reduction, Remat
from cnn_jax.models.card import CIFAR_MEAN, CIFAR_STD, ModelInfo
from cnn_jax.models.images import takes_images
from cnn_jax.models.preresnet import BasicUnit


class WideResNet(Checked):
    """(B, H, W, C) -> (B, num_classes) float32 logits; with `num_classes=0` the pooled features.

    A 3x3 with 16 channels, then three stages of `blocks` pre-activated basic units, `factor` times
    as wide as 16, 32 and 64 (table 1); WRN-d-k has (d - 4) / 6 blocks. `dropout` acts between the
    two convolutions of a unit; the paper tries 0.3 (sec. 3). `se_reduction` adds
    squeeze-and-excitation to the end of every residual branch. `stochastic_depth` is the last
    unit's rate, see depth_rates. Taps: stem, stage1 to stage3, final.
    """

    blocks: Count
    factor: Count
    se_reduction: Reduction = None
    num_classes: Classes = 10
    global_pool: GlobalPool = "avg"
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    remat: Remat = False
    norm: ModuleDef = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    @takes_images
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(Conv, use_bias=False, dtype=self.dtype)
        norm = partial(self.norm, dtype=self.dtype)
        se = squeeze_excite(self.se_reduction, dtype=self.dtype)
        unit = partial(BasicUnit, dropout=self.dropout, conv=conv, norm=norm, se=se)
        x = tap(self, "stem", conv(16, 3, 1, 1, name="stem")(x))
        rates = depth_rates(3 * self.blocks, self.stochastic_depth)
        for i, width in enumerate((16, 32, 64), start=1):
            for j in range(1, self.blocks + 1):
                stride = 2 if i > 1 and j == 1 else 1
                module = unit(width * self.factor, stride, stochastic_depth=next(rates), name=f"stage{i}_block{j}")
                x = call_block(module, x, train=train, remat=self.remat)
            x = tap(self, f"stage{i}", x)
        x = tap(self, "final", nn.relu(norm(name="norm")(x, train=train)))
        return self.forward_head(x, train=train)

    @nn.compact
    def forward_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last map, (B, H, W, C), -> logits: pool, linear layer."""
        return classify(x, self.num_classes, pool=self.global_pool, train=train, dtype=self.dtype)


wide = partial(
    ModelInfo,
    paper="Zagoruyko & Komodakis, Wide Residual Networks (1605.07146)",
    year=2016,
    input_size=(32, 32, 3),
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
    crop=1.0,
    num_classes=10,
)

# fmt: off
VARIANTS = (
    wide("wrn_40_4", partial(WideResNet, 6, 4), "40 layers, 4 times as wide", "table 4",
         params=8_949_210, macs=1_298_582_016),
    wide("wrn_16_8", partial(WideResNet, 2, 8), "16 layers, 8 times as wide", "table 4",
         params=10_961_370, macs=1_548_145_664),
    wide("wrn_28_10", partial(WideResNet, 4, 10), "28 layers, 10 times as wide", "table 4",
         params=36_479_194, macs=5_243_328_768),
)
