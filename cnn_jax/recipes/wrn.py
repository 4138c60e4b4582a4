"""Wide residual networks: Zagoruyko & Komodakis 2016 (1605.07146), sec. 3."""

from functools import partial

from cnn_jax.recipes.datasets import PAD_CROP_FLIP, cifar10
from cnn_jax.recipes.recipe import Optimizer, Schedule

# The frame around a crop is black, not the image's reflection. The authors' code decays every parameter.
paper = partial(
    cifar10,
    epochs=200,
    batch_size=128,
    optimizer=Optimizer(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, decay_on="all"),
    schedule=Schedule(kind="step", boundaries=(60, 120, 160), factor=0.2),
    augment=PAD_CROP_FLIP,
)

RECIPES = {
    "wrn_40_4_cifar10": paper("wrn_40_4"),
    "wrn_16_8_cifar10": paper("wrn_16_8"),
    "wrn_28_10_cifar10": paper("wrn_28_10"),
    "wrn_28_10_dropout_cifar10": paper("wrn_28_10", dropout=0.3),  # sec. 3, "dropout in residual blocks"
}
