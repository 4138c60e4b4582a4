"""Small images: a short modern recipe, of no paper."""

from functools import partial

from cnn_jax.recipes.datasets import DISTORTIONS, PAD_CROP_FLIP
from cnn_jax.recipes.recipe import Optimizer, Recipe, Schedule

short = partial(
    Recipe,
    label_smoothing=0.1,  # Szegedy 2015 (1512.00567), sec. 7
    zero_init=True,  # Goyal 2017 (1706.02677), sec. 5.1
    optimizer=Optimizer(lr=0.1, lr_per=128, momentum=0.9, nesterov=True, weight_decay=5e-4),
)

RECIPES = {
    "resnet20_fast_mnist": short(
        "resnet20_cifar",
        epochs=8,
        batch_size=64,
        schedule=Schedule(kind="cosine", warmup=1),
        augment=DISTORTIONS,
    ),
    "resnet18_fast_cifar10": short(
        "resnet18",
        stem="cifar",
        image_size=32,
        dataset="cifar10",
        epochs=30,
        batch_size=512,
        schedule=Schedule(kind="cosine", warmup=5),
        augment=PAD_CROP_FLIP,
    ),
}
