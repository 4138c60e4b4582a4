"""A class for each pixel: short recipes, of no paper, for scenes of 64 pixels.

To be had with any network by --model. The forms of networks for small images would see these scenes at every pixel, a
CPU's hour an epoch; their own forms halve them five times.
"""

from dataclasses import replace

from cnn_jax.recipes.recipe import Optimizer, Recipe, Schedule
from cnn_jax.recipes.uses import Segment

unet = Recipe(
    "resnet18",
    task="segment",
    image_size=64,
    dataset="composed_masks",
    epochs=3,
    batch_size=8,
    segment=Segment(widths=(64, 32, 32, 32, 16), dice=1.0),
    optimizer=Optimizer(kind="adamw", lr=2e-3, weight_decay=0.01),
    schedule=Schedule(kind="cosine", warmup=0.3),
)

RECIPES = {
    "unet_small": unet,
    "deeplab_small": replace(unet, segment=Segment("deeplab", rates=(1, 2, 3), channels=64, decoder=2, dice=1.0)),
}
