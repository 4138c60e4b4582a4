"""Residual networks on CIFAR-10: He, Zhang, Ren & Sun 2015 (1512.03385), sec. 4.2."""

from dataclasses import replace
from functools import partial

from cnn_jax.recipes.datasets import PAD_CROP_FLIP, cifar10
from cnn_jax.recipes.recipe import Optimizer, Schedule

# Iterations become epochs of 390 steps: 32k, 48k and 64k are 82, 123 and 164. The paper found them on 45,000 images
# with 5,000 held out (`--validation 0.1`); images are standardised per channel, not less the mean image.
STEPS = Schedule(kind="step", boundaries=(82, 123), factor=0.1)
# "0.01 to warm up the training until the training error is below 80% (about 400 iterations)".
WARM_STEPS = replace(STEPS, warmup=400 / 390, warmup_kind="constant", warmup_from=0.1)
paper = partial(
    cifar10,
    epochs=164,
    batch_size=128,
    optimizer=Optimizer(lr=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=STEPS,
    augment=PAD_CROP_FLIP,
)

RECIPES = {
    **{f"{name}_cifar10": paper(f"{name}_cifar") for name in ("plain20", "plain32", "plain44", "plain56")},
    **{f"{name}_cifar10": paper(f"{name}_cifar") for name in ("resnet20", "resnet32", "resnet44", "resnet56")},
    "resnet110_cifar10": paper("resnet110_cifar", schedule=WARM_STEPS),
}
