"""Densely connected networks: Huang, Liu, van der Maaten & Weinberger 2016 (1608.06993), sec. 4.2."""

from functools import partial

from cnn_jax.recipes.datasets import ANY_CROP, IMAGES_A_GPU, PAD_CROP_FLIP, cifar10, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

# The authors' code is fb.resnet.torch, whose decay is on every parameter.
SGD = Optimizer(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, decay_on="all")
on_cifar = partial(
    cifar10,
    epochs=300,
    batch_size=64,
    optimizer=SGD,
    schedule=Schedule(kind="step", boundaries=(150, 225), factor=0.1),  # at 50% and 75%
    augment=PAD_CROP_FLIP,  # "C10+"; without it the paper drops 0.2: `--dropout 0.2`
)
on_imagenet = partial(
    imagenet,
    epochs=90,
    batch_size=256,
    bn_group_size=IMAGES_A_GPU,
    optimizer=SGD,
    schedule=Schedule(kind="step", boundaries=(30, 60), factor=0.1),
    augment=ANY_CROP,  # fb.resnet.torch's without its colours
)

RECIPES = {
    "densenet_40_12_cifar10": on_cifar("densenet_40_12"),
    "densenet_bc_100_12_cifar10": on_cifar("densenet_bc_100_12"),
    "densenet121_imagenet": on_imagenet("densenet121"),
    "densenet169_imagenet": on_imagenet("densenet169"),
    "densenet201_imagenet": on_imagenet("densenet201"),
}
