"""Inception-v4 and Inception-ResNet: Szegedy, Ioffe, Vanhoucke & Alemi 2016 (1602.07261), sec. 4."""

from functools import partial

from cnn_jax.recipes.datasets import digits, imagenet
from cnn_jax.recipes.inception import DISTORTED_CROP, EVERY_2_EPOCHS, RMSPROP

# RMSProp, its rate and the average of parameters are sec. 4's. What it leaves open is Inception v3's:
# 32 images a step, clipping, label smoothing, weight decay; so is the length, ours of its longer curves.
paper = partial(
    imagenet,
    epochs=160,
    batch_size=32,
    label_smoothing=0.1,
    optimizer=RMSPROP,
    schedule=EVERY_2_EPOCHS,
    augment=DISTORTED_CROP,
)

RECIPES = {
    "inception_v4_imagenet": paper("inception_v4"),
    "inception_resnet_v2_imagenet": paper("inception_resnet_v2"),
    "inception_v4_mnist": digits("inception_v4"),
    "inception_resnet_v2_mnist": digits("inception_resnet_v2"),
}
