"""Runs an evaluation step over a whole split and counts."""

from collections.abc import Callable

import jax
import numpy as np

from cnn_jax.data.order import evaluation_batches


def evaluate(step: Callable[[np.ndarray], dict[str, jax.Array]], size: int, batch_size: int) -> dict[str, np.ndarray]:
    """Every image of a split exactly once: `step(indices)` gives (batch_size,) arrays a batch.

    Returns the same arrays for the whole split, (size,) each and in its order; what `step` says
    of the padding of the last batch is masked away.
    """
    outputs, masks = [], []
    for indices, mask in evaluation_batches(size, batch_size):
        outputs.append(step(indices))  # no waiting: the device works while the host goes on
        masks.append(mask)
    mask = np.concatenate(masks)
    columns = jax.device_get(outputs)
    return {key: np.concatenate([output[key] for output in columns])[mask] for key in columns[0]}


def summarize(records: dict[str, np.ndarray]) -> dict[str, float | int]:
    """Mean `test_loss`, `test_top1` and `test_top5` in [0, 1], and `test_count`, the images behind them."""
    count = len(records["loss"])
    return {
        "test_loss": float(records["loss"].mean(dtype=np.float64)),
        "test_top1": int(records["top1"].sum()) / count,
        "test_top5": int(records["top5"].sum()) / count,
        "test_count": count,
    }


def confusion_matrix(labels: np.ndarray, guesses: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, (num_classes, num_classes) int64: a row per true class, a column per guess."""
    flat = np.bincount(labels.astype(np.int64) * num_classes + guesses, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)
