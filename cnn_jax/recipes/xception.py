"""Xception: Chollet 2016 (1610.02357), sec. 4."""

from cnn_jax.recipes.datasets import digits, imagenet
from cnn_jax.recipes.inception import DISTORTED_CROP, EVERY_2_EPOCHS
from cnn_jax.recipes.recipe import Optimizer

RECIPES = {
    # Batch and length are not given, nor the crops: all Inception v3's, whose rates the paper takes too.
    "xception_imagenet": imagenet(
        "xception",
        epochs=100,
        batch_size=32,
        dropout=0.5,  # sec. 4.3
        optimizer=Optimizer(lr=0.045, momentum=0.9, weight_decay=1e-5, ema=0.9999),  # sec. 4.2, 4.3; Polyak's average
        schedule=EVERY_2_EPOCHS,  # sec. 4.2
        augment=DISTORTED_CROP,
    ),
    "xception_mnist": digits("xception"),
}
