"""Exact evaluation: every image once, whatever the batch size."""

from cnn_jax.evaluation.evaluate import confusion_matrix, evaluate, summarize

__all__ = ["confusion_matrix", "evaluate", "summarize"]
