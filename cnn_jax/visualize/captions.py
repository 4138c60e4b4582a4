"""Sentences under their images, and where each of their words looked, as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cnn_jax.visualize.figure import save

COLUMNS = 4
RIGHT, WRONG = "#1b7837", "#b00020"


def draw_captions(
    images: Sequence[np.ndarray],
    guesses: Sequence[str],
    references: Sequence[str],
    exact: Sequence[bool],
    path: Path,
    title: str,
) -> None:
    """Images (H, W, C) uint8, each with what was said of it above and, where that is wrong, a reference below."""
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 3.3 * rows + 0.5), layout="constrained")
    figure.suptitle(title, parse_math=False)
    cells = np.ravel(figure.subplots(rows, COLUMNS))
    for axes in cells:
        axes.set_axis_off()
    for axes, image, guess, reference, right in zip(cells, images, guesses, references, exact, strict=False):
        _show(axes, image)
        axes.set_title(fill(guess, 34), fontsize=9, pad=2, color=RIGHT if right else WRONG, parse_math=False)
        if not right:
            below = {"transform": axes.transAxes, "ha": "center", "va": "top", "fontsize": 9}
            axes.text(0.5, -0.03, fill(reference, 34), color=RIGHT, parse_math=False, **below)
    save(figure, path)


def draw_attention(
    images: Sequence[np.ndarray], words: Sequence[Sequence[str]], attention: np.ndarray, path: Path, title: str
) -> None:
    """A row for each image (H, W, C) uint8: the image, then each word over what it looked at, bright where most.

    `attention` (N, T, h, w) has the weights of each word; enlarged smoothly, and scaled for each word by itself.
    """
    columns = 1 + max(map(len, words), default=0)
    figure = Figure(figsize=(1.35 * columns, 1.55 * len(images) + 0.5), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for cells, image, said, looked in zip(
        figure.subplots(len(images), columns, squeeze=False), images, words, attention, strict=True
    ):
        for axes in cells:
            axes.set_axis_off()
        _show(cells[0], image)
        size = image.shape[1::-1]
        for axes, word, weights in zip(cells[1:], said, looked, strict=False):
            _show(axes, image)
            light = np.asarray(Image.fromarray(weights.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
            axes.imshow(light, cmap="inferno", alpha=0.6, vmin=0, vmax=max(float(light.max()), 1e-6))
            axes.set_title(word, fontsize=10, pad=2, parse_math=False)
    save(figure, path)


def _show(axes, image: np.ndarray) -> None:
    axes.imshow(image[:, :, 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
