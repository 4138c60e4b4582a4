"""A grid of images with their names, as a PNG file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cnn_jax.visualize.figure import save

COLUMNS = 8


def draw_samples(images: Sequence[np.ndarray], names: Sequence[str], path: Path, title: str) -> None:
    """Images (H, W, C) uint8 of any sizes, in grey or RGB, row by row with a name above each."""
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(1.5 * COLUMNS, 1.75 * rows + 0.5), layout="constrained")
    figure.suptitle(title, parse_math=False)
    cells = np.ravel(figure.subplots(rows, COLUMNS))
    for axes in cells:
        axes.set_axis_off()
    for axes, image, name in zip(cells, images, names, strict=False):
        axes.imshow(image[:, :, 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(name if len(name) <= 20 else f"{name[:18]}...", fontsize=8, pad=2, parse_math=False)
    save(figure, path)
