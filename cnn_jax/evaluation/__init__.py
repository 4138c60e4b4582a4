"""Exact evaluation: every image once, by the protocols of the papers, and the figures that follow."""

from cnn_jax.evaluation.evaluate import evaluate, evaluate_dataset
from cnn_jax.evaluation.metrics import (
    calibration_error,
    class_accuracy,
    confusion_matrix,
    of_seed,
    predictions,
    reliability,
    summarize,
)
from cnn_jax.evaluation.protocols import PROTOCOLS, Protocol, make_protocol, predict

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "calibration_error",
    "class_accuracy",
    "confusion_matrix",
    "evaluate",
    "evaluate_dataset",
    "make_protocol",
    "of_seed",
    "predict",
    "predictions",
    "reliability",
    "summarize",
]
