"""Squeeze-and-excitation networks: Hu, Shen, Albanie, Sun & Wu 2017 (1709.01507), sec. 5."""

from functools import partial

from cnn_jax.recipes.datasets import ANY_CROP, IMAGES_A_GPU, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

# The weight decay is not given: ResNet's (1512.03385, sec. 3.4).
paper = partial(
    imagenet,
    epochs=100,
    batch_size=1024,
    bn_group_size=IMAGES_A_GPU,
    optimizer=Optimizer(lr=0.6, momentum=0.9, weight_decay=1e-4),
    schedule=Schedule(kind="step", boundaries=(30, 60, 90), factor=0.1),
    augment=ANY_CROP,
)

RECIPES = {
    "legacy_seresnet50_imagenet": paper("legacy_seresnet50"),  # the authors' net
    "legacy_seresnet101_imagenet": paper("legacy_seresnet101"),
    "seresnet50_imagenet": paper("seresnet50"),
    "seresnet18_mnist": digits("seresnet18"),
}
