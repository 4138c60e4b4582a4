"""Inception v3: Szegedy et al. 2015 (1512.00567), sec. 7 and 8."""

from dataclasses import replace

from cnn_jax.recipes.datasets import ANY_CROP, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

# Sec. 8. 50 replicas of 32 images that step on their own become one of 32 images. The paper gives neither
# momentum with RMSProp, nor weight decay, nor the average's decay, nor crops: those of the authors'
# TensorFlow code (and GoogLeNet's crops).
RMSPROP = Optimizer(
    kind="rmsprop", lr=0.045, decay=0.9, epsilon=1.0, momentum=0.9, weight_decay=4e-5, clip=2.0, ema=0.9999
)
EVERY_2_EPOCHS = Schedule(kind="exponential", factor=0.94, every=2)
DISTORTED_CROP = replace(ANY_CROP, color="inception")

RECIPES = {
    "inception_v3_imagenet": imagenet(
        "inception_v3",
        epochs=100,  # sec. 8
        batch_size=32,
        label_smoothing=0.1,  # sec. 7
        aux_weight=0.4,  # the authors' code, as is the next
        dropout=0.2,
        optimizer=RMSPROP,
        schedule=EVERY_2_EPOCHS,
        augment=DISTORTED_CROP,
    ),
    "inception_v3_mnist": digits("inception_v3"),
}
