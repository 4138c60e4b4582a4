"""ResNet strikes back: Wightman, Touvron & Jegou 2021 (2110.00476), table 2: procedures A1, A2, A3 for ResNet-50.

Not built: repeated augmentation (A1, A2); RandAugment's magnitude that varies by 0.5 and its operations that all grow
with it; other crops at test, 0.95 of the shorter side (here the network's own 0.875), and A3's test at 224 pixels.
Over how many of the 2,048 images batch norm takes its statistics is not said: here over 64, on any number of devices.
What table 2 does not give is timm's: the rate rises from 1e-4 and ends at 1e-6, LAMB clips the gradient to norm 1, and
the label shares of mixed images become 1 above 0.2. That undoes A1's label smoothing, as it does in timm.
"""

from dataclasses import replace

from cnn_jax.recipes.datasets import ANY_CROP, imagenet
from cnn_jax.recipes.recipe import Augment, Optimizer, Recipe, Schedule


def procedure(epochs: int, lr: float, weight_decay: float, augment: Augment, **rest) -> Recipe:
    """A column of table 2."""
    return imagenet(
        "resnet50",
        epochs=epochs,
        batch_size=2048,
        bn_group_size=64,
        loss="bce",
        bce_threshold=0.2,
        optimizer=Optimizer(kind="lamb", lr=lr, weight_decay=weight_decay, clip=1.0),
        schedule=Schedule(kind="cosine", warmup=5, warmup_from=1e-4 / lr, end=1e-6 / lr),
        augment=augment,
        **rest,
    )


RANDOM = replace(ANY_CROP, policy="randaugment", policy_count=2, cutmix=1.0)

RECIPES = {
    "resnet50_a1": procedure(
        600, 5e-3, 0.01, replace(RANDOM, policy_magnitude=7, mixup=0.2), label_smoothing=0.1, stochastic_depth=0.05
    ),
    "resnet50_a2": procedure(300, 5e-3, 0.02, replace(RANDOM, policy_magnitude=7, mixup=0.1), stochastic_depth=0.05),
    "resnet50_a3": procedure(100, 8e-3, 0.02, replace(RANDOM, policy_magnitude=6, mixup=0.1), image_size=160),
}
