"""What is to know of each image, and the figures that follow from it."""

from typing import Any

import jax
import numpy as np
import optax

BINS = 15  # Guo 2017 (1706.04599), tables 1 and 2


def predictions(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """The record of each image, (B,) each, from (B, C) logits and (B,) labels in [0, C).

    `loss` (negative log-likelihood of the label, nats), `guess` (the winning class),
    `confidence` (its probability), `top1` and `top5` (bool: label first, label among the first
    five; ties go to the lower class). Logarithms of probabilities are logits, too.
    """
    best = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
    return {
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        "guess": best[:, 0],
        "confidence": jax.nn.softmax(logits).max(-1),
        "top1": best[:, 0] == labels,
        "top5": (best == labels[:, None]).any(-1),
    }


def summarize(records: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean `test_loss`, `test_top1` and `test_top5` in [0, 1], and `test_count`, the images behind them.

    Of records (N, seeds) the means over seeds, with `test_top1_std`, their standard deviation (n - 1), and
    `test_top1_seeds`, a list.
    """
    count = len(records["loss"])
    if records["loss"].ndim == 2:
        seeds = [summarize(of_seed(records, seed)) for seed in range(records["loss"].shape[1])]
        top1 = [found["test_top1"] for found in seeds]
        means = {key: sum(found[key] for found in seeds) / len(seeds) for key in seeds[0]}
        spread = {"test_top1_std": float(np.std(top1, ddof=1)), "test_top1_seeds": top1}
        return means | {"test_count": count} | spread
    return {
        "test_loss": float(records["loss"].mean(dtype=np.float64)),
        "test_top1": int(records["top1"].sum()) / count,
        "test_top5": int(records["top5"].sum()) / count,
        "test_count": count,
    }


def of_seed(records: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """One seed's (N,) records out of (N, seeds); those of a single run as they are."""
    return {key: values if values.ndim == 1 else values[:, seed] for key, values in records.items()}


def confusion_matrix(labels: np.ndarray, guesses: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, (num_classes, num_classes) int64: a row per true class, a column per guess."""
    flat = np.bincount(labels.astype(np.int64) * num_classes + guesses, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of each true class that is recognised, (num_classes,) in [0, 1]; NaN for a class without images."""
    images = confusion.sum(1)
    return np.divide(np.diag(confusion), images, out=np.full(len(images), np.nan), where=images > 0)


def reliability(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, mean confidence and accuracy in each of 15 bins ((m - 1) / 15, m / 15] of confidence.

    (N,) in [0, 1] and (N,) bool -> three arrays (15,); NaN where a bin is empty (Guo 2017, sec. 2).
    """
    edges = np.arange(1, BINS) / BINS
    place = np.digitize(confidence.astype(np.float64), edges, right=True)
    count = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty bin
        mean, accuracy = (np.bincount(place, values, BINS) / count for values in (confidence, correct))
    return count, mean, accuracy


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """How far confidence is from accuracy, in [0, 1]: the mean gap over the bins, weighted by images.

    The expected calibration error of Guo 2017 (1706.04599), eq. 3, with 15 bins.
    """
    count, mean, accuracy = reliability(confidence, correct)
    gap = np.abs(accuracy - mean)[count > 0]
    return float(count[count > 0] @ gap / count.sum())
