"""Residual networks on ImageNet: He, Zhang, Ren & Sun 2015 (1512.03385), sec. 3.4."""

from functools import partial

from cnn_jax.recipes.datasets import IMAGES_A_GPU, digits, imagenet
from cnn_jax.recipes.recipe import Augment, Optimizer, Schedule

# "Divided by 10 when the error plateaus": here at fixed epochs, every 30 as in most later work.
paper = partial(
    imagenet,
    epochs=120,  # "up to 60 x 10^4 iterations"
    batch_size=256,
    bn_group_size=IMAGES_A_GPU,
    optimizer=Optimizer(lr=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=Schedule(kind="step", boundaries=(30, 60, 90), factor=0.1),
    augment=Augment(crop="scale_jitter", jitter=(256, 480), flip=True, color="pca"),
)

# The authors' deeper nets halve the image in the first 1x1: _v1.
NETWORKS = ("plain18", "plain34", "resnet18", "resnet34", "resnet50_v1", "resnet101_v1", "resnet152_v1")

RECIPES = {f"{model}_imagenet": paper(model) for model in NETWORKS} | {"resnet18_mnist": digits("resnet18")}
