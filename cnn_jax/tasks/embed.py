"""Vectors of length 1 that lie close for images of one class, also of classes that are not trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax import embedding
from cnn_jax.data.dataset import Dataset
from cnn_jax.layers import BatchNorm
from cnn_jax.models import create_model
from cnn_jax.tasks.task import Apply, Figure, Records, Task

QUERIES, NEIGHBOURS = 6, 6  # that are drawn


@dataclass(frozen=True)
class Embed(Task):
    """The loss of `config.embed`, on batches of several images of each class; tests verify pairs (LFW's protocol).

    A step tells how many of a batch's images are nearest to one of their own class.
    """

    trained: ClassVar[Figure] = Figure("recall1", "recall@1")
    tested: ClassVar[tuple[Figure, ...]] = (
        Figure("accuracy", "verification accuracy"),
        Figure("val", "VAL@FAR=0.001"),
        Figure("auc", "AUC"),
        Figure("recall1", "recall@1"),
    )

    def model(self, **options: Any) -> embedding.Embedder:
        head, dtype = self.config.embed, options.get("dtype", jnp.float32)
        backbone = create_model(self.config.model, num_classes=0, **options)
        norm = partial(BatchNorm, **options.get("batch_norm", {})) if head.batch_norm else None
        directions = self.classes if head.loss == "arcface" else 0
        return embedding.Embedder(backbone, head.dim or None, norm, directions, dtype)

    @cached_property
    def criterion(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """Of embeddings (B, D) and labels (B,); ArcFace's is of their cosines with the directions of the classes."""
        chosen = self.config.embed
        if chosen.loss == "arcface":

            def arcface(cosines: jax.Array, labels: jax.Array) -> jax.Array:
                logits = embedding.arcface_logits(cosines, labels, chosen.used_margin, chosen.scale)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            return arcface
        if chosen.loss == "supcon":
            return partial(embedding.supcon_loss, temperature=chosen.temperature)
        if chosen.loss == "contrastive":
            return partial(embedding.contrastive_loss, margin=chosen.used_margin)
        return partial(embedding.triplet_margin_loss, margin=chosen.used_margin, mining=chosen.mining)

    def inputs(self, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.preprocess(batch["image"], key), batch["label"]

    def loss(self, apply: Apply, inputs: Any) -> tuple[jax.Array, jax.Array, dict]:
        images, labels = inputs
        embeddings, moved = apply(images)
        judged = moved["aux_logits"]["aux_arcface"]["logits"] if self.config.embed.loss == "arcface" else embeddings
        near = jnp.dot(embeddings, embeddings.T) - 9 * jnp.eye(len(labels))  # none is its own neighbour
        return self.criterion(judged, labels), jnp.mean(labels[near.argmax(1)] == labels), moved

    def record(self, apply: Apply, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """`embedding` (B, D) and `label` (B,)."""
        return {"embedding": apply(self.preprocess(batch["image"], None)), "label": batch["label"]}

    def summarize(self, records: Records, dataset: Dataset) -> dict[str, Any]:
        """With what else embedding.verify finds. The loss is Hadsell's over the pairs that are verified, whatever is
        trained, so that runs compare."""
        vectors, labels = records["embedding"], records["label"]
        pairs, same = embedding.draw_pairs(labels)
        apart = embedding.pair_distances(vectors, pairs)
        pull, push = np.mean(apart[same] ** 2) / 2, np.mean(np.maximum(0, 1 - apart[~same]) ** 2) / 2
        found = embedding.verify(vectors, pairs=pairs, same=same)._asdict()
        told = {f"test_{name}": value for name, value in found.items() if name not in ("far", "val_std")}
        recall = embedding.recall_at_k(vectors, labels, (1,))[1]
        return {"test_loss": float(pull + push), "test_count": len(labels), "test_recall1": recall} | told

    def draw(self, out: Path, title: str, records: Records, dataset: Dataset) -> list[str]:
        """The neighbours of some images, the map, and the distances of the pairs that are verified."""
        from cnn_jax.visualize import draw_distances, draw_map, draw_neighbours

        vectors, labels, rows = (records[name] for name in ("embedding", "label", "index"))
        places, apart = embedding.nearest_neighbours(vectors, min(NEIGHBOURS, len(vectors) - 1))
        by_class = np.argsort(labels, kind="stable")
        queries = by_class[np.linspace(0, len(labels) - 1, min(QUERIES, len(labels))).astype(int)]
        names = [dataset.classes[label] for label in labels]
        pixels = lambda place: dataset.pixels(int(rows[place]))  # noqa: E731
        draw_neighbours(places, apart, queries, pixels, names, out / "neighbours.png", title)
        draw_map(embedding.embedding_map(vectors), labels, dataset.classes, out / "map.png", title)
        pairs, same = embedding.draw_pairs(labels)
        threshold = embedding.verify(vectors, pairs=pairs, same=same).threshold
        draw_distances(embedding.pair_distances(vectors, pairs), same, threshold, out / "distances.png", title)
        return ["neighbours.png", "map.png", "distances.png"]
