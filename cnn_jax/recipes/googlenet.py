"""GoogLeNet: Szegedy et al. 2014 (1409.4842), sec. 6."""

from dataclasses import replace

from cnn_jax.recipes.datasets import ADAMW, ANY_CROP, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

RECIPES = {
    # Asynchronous SGD becomes synchronous. The paper gives momentum, the fall of the rate, the averaging of parameters
    # (Polyak), crops and distortions; rate, batch, weight decay and length are those of Caffe's solver of
    # bvlc_googlenet (10 million steps of 32), and the average's decay is ours.
    "googlenet_imagenet": imagenet(
        "googlenet",
        epochs=250,
        batch_size=32,
        aux_weight=0.3,  # sec. 5
        optimizer=Optimizer(lr=0.01, momentum=0.9, weight_decay=2e-4, ema=0.9999),
        schedule=Schedule(kind="exponential", factor=0.96, every=8),  # "by 4% every 8 epochs"
        augment=replace(ANY_CROP, color="inception"),
    ),
    "googlenet_mnist": digits("googlenet", ADAMW),
}
