"""A class for each pixel: short recipes, of no paper."""

from dataclasses import replace

from cnn_jax.recipes.recipe import ModelOptions, Optimizer, Recipe, Schedule
from cnn_jax.recipes.uses import Segment

# Scenes of 64 pixels, seen by a network's own form, which halves them five times, since that for small images sees them
# at every pixel: 15 times the work. Any other network by --model.
unet = Recipe(
    "resnet18",
    task="segment",
    image_size=64,
    dataset="composed_masks",
    epochs=4,
    batch_size=16,
    segment=Segment(widths=(64, 32, 32, 32, 16), dice=1.0),
    optimizer=Optimizer(kind="adamw", lr=3e-3, weight_decay=0.01),
    schedule=Schedule(kind="cosine", warmup=0.5),
)

RECIPES = {
    "unet_small": unet,
    # Outlines by the map of stride 2: of stride 8, v3's own, no logits could draw strokes of three pixels. A network
    # that cannot dilate takes --model-options '{}'.
    "deeplab_small": replace(
        unet,
        model_options=ModelOptions(output_stride=16),
        segment=Segment("deeplab", rates=(1, 2), channels=64, decoder=2, dice=1.0),
    ),
}
