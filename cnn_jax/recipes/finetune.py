"""Transfer learning: a short recipe for a network that starts from weights, of no paper."""

from cnn_jax.recipes.datasets import DISTORTIONS
from cnn_jax.recipes.recipe import Optimizer, Recipe, Schedule

RECIPES = {
    # To be used with --start, and a --model and --dataset of one's own.
    "finetune": Recipe(
        "resnet20_cifar",
        epochs=10,
        optimizer=Optimizer(lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=Schedule(kind="cosine", warmup=1),
        augment=DISTORTIONS,
    ),
}
