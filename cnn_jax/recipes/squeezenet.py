"""SqueezeNet: Iandola et al. 2016 (1602.07360), sec. 3.4, and its authors' solver.prototxt."""

from cnn_jax.recipes.datasets import ADAMW, CROP_OF_256, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

RECIPES = {
    # The paper gives the rate and its straight fall, and refers to the released files for the rest: 68 epochs, L2 of
    # 2e-4, and batches of 512 at that rate (1,024 at twice the rate and a falling root in the last version).
    "squeezenet1_0_imagenet": imagenet(
        "squeezenet1_0",
        epochs=68,
        batch_size=512,
        optimizer=Optimizer(lr=0.04, momentum=0.9, weight_decay=2e-4, decay_on="all"),
        schedule=Schedule(kind="polynomial", power=1.0),
        augment=CROP_OF_256,
    ),
    "squeezenet1_1_mnist": digits("squeezenet1_1", ADAMW),
}
