"""Recipes: everything that decides a run's result, as frozen dataclasses. No JAX is imported here."""

from cnn_jax.recipes import (
    alexnet,
    bn_inception,
    densenet,
    googlenet,
    inception,
    inception_v4,
    lenet,
    mobilenet,
    nin,
    one_hour,
    preresnet,
    resnet,
    resnet_cifar,
    senet,
    small,
    strikes_back,
    vgg,
    wrn,
    xception,
    zfnet,
)
from cnn_jax.recipes.recipe import Augment, Optimizer, Recipe, Schedule

PAPERS = (
    lenet,
    alexnet,
    zfnet,
    nin,
    vgg,
    googlenet,
    bn_inception,
    inception,
    inception_v4,
    xception,
    resnet,
    resnet_cifar,
    preresnet,
    wrn,
    densenet,
    mobilenet,
    senet,
    one_hour,
    strikes_back,
    small,
)  # in the order of models.FAMILIES, then what trains networks of others
RECIPES: dict[str, Recipe] = {name: recipe for paper in PAPERS for name, recipe in paper.RECIPES.items()}
DEFAULT_RECIPE = "lenet5_modern"

__all__ = ["DEFAULT_RECIPE", "PAPERS", "RECIPES", "Augment", "Optimizer", "Recipe", "Schedule"]
