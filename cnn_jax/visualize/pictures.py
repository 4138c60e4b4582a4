"""The pictures that a run leaves, as PNG files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cnn_jax.evaluation import calibration_error, reliability
from cnn_jax.visualize.figure import save

TRAIN, TEST = "#4c78a8", "#e45756"


def plain(text: str) -> str:
    """A name that may hold a $, which matplotlib would take for a formula."""
    return text.replace("$", r"\$")


def draw_curves(
    records: Sequence[dict],
    path: Path,
    title: str,
    trained: tuple[str, str] = ("top1", "top-1"),
    shown: tuple[str, str] = ("top1", "top-1"),
) -> None:
    """Loss, a figure and learning rate over epochs, from the records of a metrics.jsonl.

    `trained` and `shown` are the figure's key and title in training and in tests, a share.
    """
    train = [r for r in records if r["kind"] == "train"]
    test = [r for r in records if r["kind"] in ("test", "validation")]
    tested = test[0]["kind"] if test else "test"
    figure = Figure(figsize=(13, 4), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    kinds = {"train": [r for r in train if trained[0] in r], tested: [r for r in test if shown[0] in r]}
    styles = {"train": {"color": TRAIN, "alpha": 0.8}, tested: {"color": TEST, "marker": "."}}
    for kind, of in kinds.items():
        key, told = trained if kind == "train" else shown
        epochs, label = [r["epoch"] for r in of], kind if trained[1] == shown[1] else f"{kind}, {told}"
        loss.plot(epochs, [r["loss"] for r in of], label=kind, **styles[kind])
        accuracy.plot(epochs, [100 * r[key] for r in of], label=label, **styles[kind])
    loss.legend()
    accuracy.legend()
    loss.set(title="loss", ylabel="mean loss per image (nats)", yscale="log")
    accuracy.set(title=shown[1], ylabel=f"{shown[1]} (%)")
    low = min([100 * r[shown[0]] for r in kinds[tested]] + [90.0])
    accuracy.set_ylim(max(0, low - 5), 100.5)
    rate.plot([r["epoch"] for r in train], [r["lr"] for r in train], color="#54a24b", label="learning rate")
    rate.set(title="learning rate", ylabel="learning rate")
    rate.legend()
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    last = f": {100 * test[-1][shown[0]]:.2f}% of {test[-1]['count']:,} {tested} images" if kinds[tested] else ""
    figure.suptitle(plain(title) + last)
    save(figure, path)


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
        names = [plain(name) for name in classes]
        axes.set_xticks(range(size), names)
        axes.set_yticks(range(size), names)
        if max(map(len, classes)) > 3:
            axes.tick_params("x", rotation=90)
    axes.set(xlabel="guess", ylabel="true class", title=plain(title))
    save(figure, path)


def draw_reliability(confidence: np.ndarray, correct: np.ndarray, path: Path, title: str) -> None:
    """Accuracy against confidence in 15 bins, with the number of images in each (Guo 2017, fig. 1 and 4).

    `confidence` (N,) in [0, 1], `correct` (N,) bool. Bars below the diagonal: too sure.
    """
    count, mean, accuracy = reliability(confidence, correct)
    width = 100 / len(count)
    left = width * np.arange(len(count))
    figure = Figure(figsize=(5.5, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(left, 100 * accuracy, width, align="edge", color=TRAIN, edgecolor="white", label="accuracy")
    above.plot(100 * mean, 100 * accuracy, "o", color=TEST, markersize=4, clip_on=False, label="at mean confidence")
    above.plot([0, 100], [0, 100], color="grey", linestyle="--", label="as sure as right")
    above.set(ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 102))
    figure.legend(loc="outside lower center", ncols=3)  # bars may stand anywhere inside
    below.bar(left, count, width, align="edge", color="grey", edgecolor="white")
    below.set(xlabel="confidence (%)", ylabel="images", yscale="log")
    error = calibration_error(confidence, correct)
    figure.suptitle(f"{plain(title)}\ncalibration error {100 * error:.2f}%, {len(correct):,} images")
    save(figure, path)


def draw_mistakes(
    predictions: dict[str, np.ndarray],
    pixels: Callable[[int], np.ndarray],
    classes: Sequence[str],
    path: Path,
    title: str,
    most: int = 24,
) -> None:
    """The wrongly classified images with the surest guesses first: label above, guess below.

    `predictions` are evaluation.evaluate's, `pixels(index)` gives an image, (H, W, C) uint8.
    """
    wrong = np.flatnonzero(~predictions["top1"])
    shown = wrong[np.argsort(-predictions["confidence"][wrong], kind="stable")][:most]
    columns, rows = 8, max(1, -(-len(shown) // 8))
    figure = Figure(figsize=(1.6 * columns, 2.1 * rows + 0.7), layout="constrained")
    figure.suptitle(
        f"{plain(title)}: {len(wrong)} of {len(predictions['top1']):,} wrong, the surest {len(shown)} first"
    )
    cells = np.ravel(figure.subplots(rows, columns))
    for axes in cells:
        axes.set_axis_off()
    for axes, place in zip(cells, shown, strict=False):
        index, label, guess, confidence = (predictions[key][place] for key in ("index", "label", "guess", "confidence"))
        image = pixels(int(index))
        grey = image.shape[-1] == 1
        axes.imshow(image[:, :, 0] if grey else image, cmap="gray_r" if grey else None, vmin=0, vmax=255)
        guess = f"guess {plain(classes[guess])} ({100 * confidence:.0f}%)"
        axes.set_title(f"label {plain(classes[label])}", fontsize=9, color="#1b7837", pad=2)
        axes.text(0.5, -0.04, guess, transform=axes.transAxes, ha="center", va="top", fontsize=9, color="#b00020")
    save(figure, path)
