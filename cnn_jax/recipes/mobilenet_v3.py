"""MobileNet v3: Howard, Sandler et al. 2019 (1905.02244), sec. 6.1.1.

Neither RMSProp's decay and epsilon nor a length are given: MnasNet's, of the same authors. "Learning rate decay rate
of 0.01 every 3 epochs" is read as a factor of 0.99, and "dropout of 0.8" as what is kept.
"""

from dataclasses import replace
from functools import partial

from cnn_jax.recipes.datasets import digits, imagenet
from cnn_jax.recipes.inception import DISTORTED_CROP
from cnn_jax.recipes.mnasnet import RMSPROP
from cnn_jax.recipes.recipe import Schedule

howard = partial(
    imagenet,
    epochs=350,
    batch_size=4096,
    bn_group_size=128,  # "128 images per chip"
    bn_momentum=0.99,
    dropout=0.2,
    optimizer=replace(RMSPROP, lr=0.1),
    schedule=Schedule(kind="exponential", factor=0.99, every=3),
    augment=DISTORTED_CROP,
)

RECIPES = {
    "mobilenet_v3_large_imagenet": howard("mobilenet_v3_large"),
    "mobilenet_v3_small_imagenet": howard("mobilenet_v3_small"),
    "mobilenet_v3_small_mnist": digits("mobilenet_v3_small"),
}
