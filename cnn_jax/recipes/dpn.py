"""Dual path networks: Chen et al. 2017 (1707.01629), sec. 4, and the authors' code (cypw/DPNs).

40 GPUs of 32 images. The rate falls "in steps" by 0.1, of which neither says when, nor how long, nor what decays:
ResNeXt's 30, 60, 90 epochs and 1e-4. The code's colours are left out.
"""

import math

from cnn_jax.recipes.datasets import ANY_CROP, IMAGES_A_GPU, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

RECIPES = {
    "dpn92_imagenet": imagenet(
        "dpn92",
        epochs=100,
        batch_size=40 * IMAGES_A_GPU,
        bn_group_size=IMAGES_A_GPU,
        optimizer=Optimizer(lr=math.sqrt(0.1), momentum=0.9, weight_decay=1e-4),
        schedule=Schedule(kind="step", boundaries=(30, 60, 90)),
        augment=ANY_CROP,
    ),
    "dpn68_mnist": digits("dpn68"),
}
