"""The pictures that a run leaves, as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cnn_jax.evaluation import confusion_matrix

TRAIN, TEST = "#4c78a8", "#e45756"


def draw_run(
    out: Path,
    title: str,
    records: Sequence[dict],
    images: np.ndarray,
    labels: np.ndarray,
    predictions: dict[str, np.ndarray],
    classes: Sequence[str],
) -> None:
    """Draws curves.png, confusion.png and mistakes.png into `out`.

    `records` are those of metrics.jsonl; `images`, `labels` and `predictions` (with `guess` and
    `confidence`, see training.step.eval_step) are those of the test split, in one order.
    """
    guesses = predictions["guess"]
    draw_curves(records, out / "curves.png", title)
    draw_confusion(confusion_matrix(labels, guesses, len(classes)), classes, out / "confusion.png", title)
    draw_mistakes(images, labels, guesses, predictions["confidence"], classes, out / "mistakes.png", title)


def draw_curves(records: Sequence[dict], path: Path, title: str) -> None:
    """Loss, accuracy and learning rate over epochs, from the records of a metrics.jsonl."""
    train = [r for r in records if r["kind"] == "train"]
    test = [r for r in records if r["kind"] == "test"]
    figure = Figure(figsize=(13, 4), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    for axes, key, scale in ((loss, "loss", 1), (accuracy, "top1", 100)):
        axes.plot([r["epoch"] for r in train], [scale * r[key] for r in train], color=TRAIN, label="train", alpha=0.8)
        axes.plot([r["epoch"] for r in test], [scale * r[key] for r in test], color=TEST, label="test", marker=".")
        axes.legend()
    loss.set(title="loss", ylabel="mean loss per image (nats)", yscale="log")
    accuracy.set(title="accuracy", ylabel="top-1 accuracy (%)")
    low = min([100 * r["top1"] for r in test] + [90.0])
    accuracy.set_ylim(max(0, low - 5), 100.5)
    rate.plot([r["epoch"] for r in train], [r["lr"] for r in train], color="#54a24b", label="learning rate")
    rate.set(title="learning rate", ylabel="learning rate")
    rate.legend()
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    last = f": {100 * test[-1]['top1']:.2f}% of {test[-1]['count']:,} test images" if test else ""
    figure.suptitle(title + last)
    figure.savefig(path, dpi=110)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path, title: str) -> None:
    """Counts (true class, guess): rows coloured by the share of each true class."""
    size = len(classes)
    side = min(max(5.5, 0.55 * size + 2), 24)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    drawn = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(drawn, ax=axes, label="share of the true class (%)", shrink=0.8)
    if size <= 40:  # beyond that, numbers are no longer legible
        for row, column in zip(*np.nonzero(matrix), strict=True):
            shade = "white" if share[row, column] > 0.5 else "#b00020" if row != column else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=shade, fontsize=9)
        axes.set_xticks(range(size), classes)
        axes.set_yticks(range(size), classes)
        if max(map(len, classes)) > 3:
            axes.tick_params("x", rotation=90)
    axes.set(xlabel="guess", ylabel="true class", title=title)
    figure.savefig(path, dpi=110)


def draw_mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    guesses: np.ndarray,
    confidences: np.ndarray,
    classes: Sequence[str],
    path: Path,
    title: str,
    most: int = 24,
) -> None:
    """The wrongly classified images with the surest guesses first: label above, guess below.

    `images` (N, H, W, C) uint8; `labels`, `guesses` (N,) class numbers; `confidences` (N,) in [0, 1].
    """
    wrong = np.flatnonzero(labels != guesses)
    shown = wrong[np.argsort(-confidences[wrong], kind="stable")][:most]
    columns, rows = 8, max(1, -(-len(shown) // 8))
    figure = Figure(figsize=(1.6 * columns, 2.1 * rows + 0.7), layout="constrained")
    figure.suptitle(f"{title}: {len(wrong)} of {len(labels):,} wrong, the surest {len(shown)} first")
    cells = np.ravel(figure.subplots(rows, columns))
    for axes in cells:
        axes.set_axis_off()
    for axes, index in zip(cells, shown, strict=False):
        grey = images.shape[-1] == 1
        pixels = images[index, :, :, 0] if grey else images[index]
        axes.imshow(pixels, cmap="gray_r" if grey else None, vmin=0, vmax=255)
        guess = f"guess {classes[guesses[index]]} ({100 * confidences[index]:.0f}%)"
        axes.set_title(f"label {classes[labels[index]]}", fontsize=9, color="#1b7837", pad=2)
        axes.text(0.5, -0.04, guess, transform=axes.transAxes, ha="center", va="top", fontsize=9, color="#b00020")
    figure.savefig(path, dpi=110)
