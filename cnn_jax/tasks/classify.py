"""One class for each image."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnn_jax.data import augment
from cnn_jax.data.dataset import Dataset
from cnn_jax.evaluation import confusion_matrix, of_seed, predictions, summarize
from cnn_jax.models import create_model, lenet
from cnn_jax.tasks.task import Apply, Figure, Records, Task

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # of logits (B, C) and label probabilities (B, C), per image
MIX = 0x6D697800  # set apart from what images draw one by one


@dataclass(frozen=True)
class Classify(Task):
    """The recipe's `loss` of logits and labels, smoothed and mixed as it says.

    Auxiliary heads' losses are added times `aux_weight` (0.3: Szegedy 2014, 1409.4842, sec. 5).
    """

    trained: ClassVar[Figure] = Figure("top1", "top-1")
    tested: ClassVar[tuple[Figure, ...]] = (Figure("top1", "top-1"), Figure("top5", "top-5"))

    def model(self, **options: Any) -> nn.Module:
        return create_model(self.config.model, num_classes=self.classes, **options)

    @cached_property
    def criterion(self) -> Loss:
        """What training minimises, per image."""
        losses = {
            "cross_entropy": optax.softmax_cross_entropy,
            "bce": partial(binary_cross_entropy, threshold=self.config.bce_threshold),
            "map": lenet.map_loss,
        }
        return losses[self.config.loss]

    @cached_property
    def test_criterion(self) -> Loss:
        """What a test tells: the likelihood's, or LeNet-5's own."""
        return lenet.map_loss if self.config.loss == "map" else optax.softmax_cross_entropy

    @cached_property
    def mix(self) -> Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None:
        """(key, images, label probabilities) -> both, mixed; None if the recipe mixes nothing."""
        return augment.make_mixing(asdict(self.config.augment))

    def inputs(self, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        images = self.preprocess(batch["image"], key)
        labels = optax.smooth_labels(jax.nn.one_hot(batch["label"], self.classes), self.config.label_smoothing)
        if self.mix is not None:
            images, labels = self.mix(jax.random.fold_in(key, MIX), images, labels)
        return images, labels, batch["label"]

    def loss(self, apply: Apply, inputs: Any) -> tuple[jax.Array, jax.Array, dict]:
        images, labels, label = inputs
        logits, moved = apply(images)
        value = self.criterion(logits, labels).mean()
        for aux_logits in jax.tree.leaves(moved.get("aux_logits", {})):
            value += self.config.aux_weight * self.criterion(aux_logits, labels).mean()
        return value, jnp.mean(logits.argmax(-1) == label), moved

    def record(self, apply: Apply, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """evaluation.predictions, with `label`; the loss is that of the unsmoothed one."""
        logits, label = apply(self.preprocess(batch["image"], None)), batch["label"]
        loss = self.test_criterion(logits, jax.nn.one_hot(label, self.classes))
        return predictions(logits, label) | {"loss": loss, "label": label}

    def summarize(self, records: Records, dataset: Dataset) -> dict[str, Any]:
        return summarize(records)

    def told(self, summary: dict[str, Any]) -> str:
        count, top1 = summary["test_count"], summary["test_top1"]
        if "test_top1_seeds" in summary:
            seeds = len(summary["test_top1_seeds"])
            return f"test top-1 {top1:.2%} ± {summary['test_top1_std']:.2%} of {count} images, {seeds} seeds,"
        return f"test top-1 {top1:.2%}: {count - round(top1 * count)} of {count} images wrong"

    def draw(self, out: Path, title: str, records: Records, dataset: Dataset) -> list[str]:
        """The first seed's confusion matrix and its mistakes."""
        from cnn_jax.visualize import draw_confusion, draw_mistakes

        of_one, classes = of_seed(records, 0), dataset.classes
        counts = confusion_matrix(of_one["label"], of_one["guess"], len(classes))
        draw_confusion(counts, classes, out / "confusion.png", title)
        draw_mistakes(of_one, dataset.pixels, classes, out / "mistakes.png", title)
        return ["confusion.png", "mistakes.png"]


def binary_cross_entropy(logits: jax.Array, labels: jax.Array, threshold: float | None = None) -> jax.Array:
    """Per image, the mean over classes of each class's yes or no: (B, C) logits and labels in [0, 1] -> (B,).

    Wightman 2021 (2110.00476), sec. 2.1. With `threshold` a label above it is 1 and another 0, so that
    both classes of a mixed image are fully there.
    """
    if threshold is not None:
        labels = (labels > threshold).astype(labels.dtype)
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean(-1)
