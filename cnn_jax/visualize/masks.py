"""Images beside the classes of their pixels, true and guessed, as a PNG file."""

from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cnn_jax.data.dataset import IGNORED, Dataset
from cnn_jax.visualize.figure import save
from cnn_jax.visualize.pictures import plain

SHOWN = 12  # images
LEGEND = 40  # classes at most that are named
UNKNOWN = (1.0, 1.0, 1.0)


def class_colours(classes: int) -> np.ndarray:
    """(256, 3) in [0, 1]: black for class 0, which is most often the background, white for IGNORED and what is none."""
    twenty, hues = matplotlib.colormaps["tab20"], matplotlib.colormaps["hsv"]
    chosen = twenty(np.arange(20)) if classes <= 21 else hues(np.linspace(0, 0.95, classes - 1))
    colours = np.full((256, 3), UNKNOWN)
    colours[:classes] = [(0, 0, 0), *(colour[:3] for colour in chosen)][:classes]
    return colours


def draw_masks(records: dict[str, np.ndarray], dataset: Dataset, path: Path, title: str) -> None:
    """Draws image, truth and guess side by side, of the image with the fewest pixels right to that with the most.

    `records` has for each image its `index` in `dataset`, `confusion` (C, C) and `guess` (h, w), the classes of the
    image or of every so many-th pixel.
    """
    right = np.trace(records["confusion"], axis1=1, axis2=2) / np.maximum(records["confusion"].sum((1, 2)), 1)
    order = np.argsort(right, kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int))]
    colours, columns = class_colours(len(dataset.classes)), 2
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(1.7 * 3 * columns, 1.85 * rows + 1.6), layout="constrained")
    cells = figure.subplots(rows, 3 * columns, squeeze=False)
    for axes in cells.flat:
        axes.set_axis_off()
    for number, place in enumerate(shown):
        row, first = number % rows, 3 * (number // rows)  # down the first column, then the second
        image, truth, guess = cells[row, first : first + 3]
        index = int(records["index"][place])
        pixels, mask = dataset.pixels(index), np.asarray(dataset.read([index])[0][1])
        image.imshow(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        truth.imshow(colours[mask], interpolation="nearest")
        guess.imshow(colours[records["guess"][place]], interpolation="nearest")
        image.set_title(f"image {index}", fontsize=8, pad=2)
        truth.set_title("truth", fontsize=8, pad=2)
        guess.set_title(f"guess, {100 * right[place]:.1f}% right", fontsize=8, pad=2)
    patch, named = partial(Patch, edgecolor="grey"), enumerate(dataset.classes[:LEGEND])
    handles = [patch(facecolor=colours[number], label=plain(name)) for number, name in named]
    handles.append(patch(facecolor=colours[IGNORED], label="not counted"))
    figure.legend(handles=handles, loc="outside lower center", ncols=9, fontsize=8)
    figure.suptitle(f"{plain(title)}: from the fewest pixels right to the most")
    save(figure, path)
