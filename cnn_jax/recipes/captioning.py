"""Captioning, small: scenes of a garment and a digit, of no paper; the decoders are Vinyals 2014's and Xu 2015's."""

from dataclasses import replace

from cnn_jax.recipes.recipe import Augment, ModelOptions, Optimizer, Recipe, Schedule
from cnn_jax.recipes.uses import Caption

DECODER = Caption(look_at="stage3", width=128, embedding=128, dropout=0.2, coverage=0.0)

RECIPES = {
    # From nothing; with --start as in both papers, whose network is a classifier first, a few epochs are enough.
    "show_attend_tell_small": Recipe(
        "resnet18",
        task="caption",
        image_size=64,
        model_options=ModelOptions(width=32, stem_width=32),
        dataset="composed_captions",
        epochs=20,
        batch_size=32,
        optimizer=Optimizer(kind="adamw", lr=2e-3, weight_decay=0.02, clip=5.0),  # Adam: 1502.03044, sec. 4.3
        schedule=Schedule(kind="cosine", warmup=1),
        augment=Augment(pad=4),  # no flip: it would move what is on the left
        caption=DECODER,
    ),
}
RECIPES["show_and_tell_small"] = replace(
    RECIPES["show_attend_tell_small"], caption=replace(DECODER, attention=False, look_at=None)
)
