"""Losses of single images, of logits and label probabilities."""

from collections.abc import Callable

import jax
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Per image, (B, C) logits and (B, C) label probabilities -> (B,)."""
    return optax.softmax_cross_entropy(logits, labels)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array, threshold: float | None = None) -> jax.Array:
    """Per image, the mean over classes of each class's yes or no: (B, C) logits and labels in [0, 1] -> (B,).

    Wightman 2021 (2110.00476), sec. 2.1. With `threshold` a label above it is 1 and another 0, so that
    both classes of a mixed image are fully there.
    """
    if threshold is not None:
        labels = (labels > threshold).astype(labels.dtype)
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean(-1)
