"""Network in Network: Lin, Chen & Yan 2013 (1312.4400), sec. 4.

The paper gives the batch size and that the rate is set by hand and falls to a tenth twice, when the
training accuracy stops improving. Rates, decay, momentum and lengths here are ours, of the size
that the authors' Caffe nets have.
"""

from cnn_jax.recipes.datasets import CROP_OF_256, PAD_CROP_FLIP, cifar10, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

RECIPES = {
    # With the augmentation of sec. 4.2 (8.81% of error): translation and flips. No whitening, see models/nin.py.
    "nin_cifar10": cifar10(
        "nin_cifar10",
        epochs=300,
        batch_size=128,  # sec. 4
        optimizer=Optimizer(lr=0.05, momentum=0.9, weight_decay=1e-4),
        schedule=Schedule(kind="step", boundaries=(200, 260), factor=0.1),
        augment=PAD_CROP_FLIP,
    ),
    # Not in the paper, whose largest set is CIFAR: Krizhevsky's procedure, which sec. 4 refers to.
    "nin_imagenet": imagenet(
        "nin_imagenet",
        epochs=90,
        batch_size=128,
        optimizer=Optimizer(lr=0.01, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(kind="step", boundaries=(40, 80), factor=0.1),
        augment=CROP_OF_256,
    ),
}
