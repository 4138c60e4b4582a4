"""Maps and pictures of visualize's methods as pixels, and panels of them in one PNG file."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cnn_jax.visualize.figure import save

COLUMNS = 4
SATURATED = 99.5  # percent of the values are shown as they are; gradients have few that are far larger
GAP = 1  # pixels between tiles


def overlay(pixels: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """A map (H, W) over the image that it is of, (H, W, C) uint8 in grey or RGB -> (H, W, 3) uint8.

    The image is grey; from 0 to the largest values it turns yellow by way of red. Where a map has values below 0, what
    speaks for the class is red, what speaks against it blue.
    """
    grey = pixels.mean(-1, keepdims=True) / 255
    scaled = _scaled(np.asarray(attribution))
    signed = scaled.min() < 0
    colors = matplotlib.colormaps["bwr" if signed else "inferno"]((scaled + 1) / 2 if signed else scaled)[..., :3]
    weight = 0.85 * np.abs(scaled)[..., None] ** (1 if signed else 0.5)
    return _whole(255 * ((1 - weight) * (0.25 + 0.75 * grey) + weight * colors))


def as_picture(values: np.ndarray) -> np.ndarray:
    """What belongs to pixels, such as a gradient or a filter, (H, W, C) -> uint8 of the same shape: 0 is grey."""
    return _whole(127.5 * (1 + _scaled(np.asarray(values))))


def tiles(pictures: np.ndarray, columns: int = 0) -> np.ndarray:
    """Pictures (N, h, w, C) uint8 side by side, in a square unless `columns` says else; white between them."""
    count, height, width, channels = pictures.shape
    columns = columns or int(np.ceil(count**0.5))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), 255, np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        sheet[row * (height + GAP) :, column * (width + GAP) :][:height, :width] = picture
    return sheet


def draw_panels(panels: Mapping[str, np.ndarray], path: Path, title: str = "", columns: int = COLUMNS) -> None:
    """Draws a PNG with each picture (H, W, C) uint8 under its name, row by row."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    aspects = [pixels.shape[0] / pixels.shape[1] for pixels in panels.values()]
    side = 3 if columns > 2 else 4  # inches
    heights = [side * max(aspects[row * columns :][:columns]) + 0.25 for row in range(rows)]  # with the name
    lines = textwrap.wrap(title, 13 * side * columns)
    figure = Figure(figsize=(side * columns, sum(heights) + 0.25 * len(lines)), layout="constrained")
    if lines:
        figure.suptitle("\n".join(lines), fontsize=10, parse_math=False)
    cells = np.ravel(figure.subplots(rows, columns, height_ratios=heights))
    for axes in cells:
        axes.set_axis_off()
    for axes, (name, pixels) in zip(cells, panels.items(), strict=False):
        axes.imshow(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_title(name, fontsize=9, parse_math=False)
    save(figure, path)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Divided by a size that few values exceed, and these cut: in [-1, 1]."""
    sizes = np.abs(values)
    most = np.percentile(sizes, SATURATED) or sizes.max() or 1
    return np.clip(values / most, -1, 1)


def _whole(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)
