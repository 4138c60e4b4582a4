"""ZFNet: Zeiler & Fergus 2013 (1311.2901), sec. 3."""

from cnn_jax.recipes.datasets import ADAMW, CROP_OF_256, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

RECIPES = {
    # Not done: filters whose RMS exceeds 0.1 are not scaled back to it. Crops are random, not ten fixed ones, and the
    # rate falls at fixed epochs, not by hand. The paper gives no weight decay: Krizhevsky's, whose network it revises.
    "zfnet_imagenet": imagenet(
        "zfnet",
        epochs=70,
        batch_size=128,
        optimizer=Optimizer(lr=0.01, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(kind="step", boundaries=(20, 40, 60), factor=0.1),
        augment=CROP_OF_256,
    ),
    "zfnet_mnist": digits("zfnet", ADAMW),
}
