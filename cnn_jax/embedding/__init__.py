"""Embeddings: a network whose outputs lie close for images that are alike; how it is trained, and how it is judged."""

from cnn_jax.embedding.embedder import Embedder
from cnn_jax.embedding.losses import arcface_logits, arcface_loss, contrastive_loss, supcon_loss, triplet_margin_loss
from cnn_jax.embedding.verification import (
    Verification,
    draw_pairs,
    embedding_map,
    nearest_neighbours,
    pair_distances,
    recall_at_k,
    verify,
)

__all__ = [
    "Embedder",
    "Verification",
    "arcface_logits",
    "arcface_loss",
    "contrastive_loss",
    "draw_pairs",
    "embedding_map",
    "nearest_neighbours",
    "pair_distances",
    "recall_at_k",
    "supcon_loss",
    "triplet_margin_loss",
    "verify",
]
