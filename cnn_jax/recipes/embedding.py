"""Embeddings of classes that were never trained on: a short recipe, of no paper."""

from cnn_jax.recipes.recipe import Augment, Optimizer, Recipe, Schedule
from cnn_jax.recipes.uses import Embed

RECIPES = {
    # Tested on trousers, pullovers and sneakers (docs/embedding.md says why). Numbers, since TFDS's fashion_mnist has
    # other names for its classes.
    "embedding": Recipe(
        "resnet20_cifar",
        task="embed",
        dataset="fashion_5k",
        train_classes=("0", "3", "4", "5", "6", "8", "9"),
        test_classes=("1", "2", "7"),
        epochs=4,
        batch_size=56,  # 8 images of each of the 7
        embed=Embed(images_per_class=8),
        optimizer=Optimizer(kind="adamw", lr=1e-3, weight_decay=1e-4),
        schedule=Schedule(kind="cosine", warmup=0.2),
        augment=Augment(pad=2, flip=True),
    ),
}
