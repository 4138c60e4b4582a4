"""What embeddings say of images, as PNG files: neighbours, a map, distances."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cnn_jax.visualize.figure import save
from cnn_jax.visualize.pictures import plain

ALIKE, OTHER = "#1b7837", "#b00020"
NAMED = 20  # classes that a legend and colours tell apart


def draw_neighbours(
    places: np.ndarray,
    apart: np.ndarray,
    queries: Sequence[int],
    pixels: Callable[[int], np.ndarray],
    names: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """A row for each of `queries`, numbers of images: the image, then its neighbours, green if they are of its class.

    `places` and `apart` (N, k) are those of embedding.nearest_neighbours, `names` the class of each image, (N,) words;
    `pixels(index)` gives an image, (H, W, C) uint8.
    """
    columns = places.shape[1] + 1
    figure = Figure(figsize=(1.35 * columns + 0.3, 1.6 * len(queries) + 0.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for row, query in zip(figure.subplots(len(queries), columns, squeeze=False), queries, strict=True):
        for axes, index, far in zip(row, [query, *places[query]], [None, *apart[query]], strict=True):
            image = pixels(int(index))
            grey = image.shape[-1] == 1
            axes.imshow(image[:, :, 0] if grey else image, cmap="gray_r" if grey else None, vmin=0, vmax=255)
            colour = "black" if far is None else ALIKE if names[index] == names[query] else OTHER
            axes.set(xticks=[], yticks=[])
            for side in axes.spines.values():
                side.set(color=colour, linewidth=1 if far is None else 2.5)
            told = names[index] if far is None else f"{names[index]}, {far:.2f}"
            axes.set_title(told, fontsize=8, color=colour, pad=3, parse_math=False)
    save(figure, path)


def draw_map(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path, title: str) -> None:
    """Embeddings in the plane, (N, 2) as embedding.embedding_map has them, coloured by their `labels` (N,)."""
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.subplots()
    there = np.unique(labels)
    for number, label in enumerate(there):
        rows = labels == label
        colour = f"C{number}" if len(there) <= 10 else _colours(len(there))[number]
        axes.scatter(*points[rows].T, s=8, alpha=0.5, linewidths=0, color=colour, label=plain(classes[label]))
    if len(there) <= NAMED:
        figure.legend(loc="outside right upper", markerscale=2)
    axes.set(xlabel="first principal component", ylabel="second principal component")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)
    figure.suptitle(title, parse_math=False)
    save(figure, path)


def draw_distances(apart: np.ndarray, same: np.ndarray, threshold: float, path: Path, title: str) -> None:
    """How far pairs of one class and of two are apart, (P,) distances and (P,) bool, and where they are divided."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, max(float(apart.max()), threshold) * 1.02 + 1e-6, 60).tolist()
    for rows, colour, name in ((same, ALIKE, "one class"), (~same, OTHER, "two classes")):
        share = np.full(rows.sum(), 100 / max(1, rows.sum()))
        axes.hist(
            apart[rows], edges, weights=share, color=colour, alpha=0.55, label=f"pairs of {name} ({rows.sum():,})"
        )
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.2f}")
    axes.set(xlabel="distance of two embeddings", ylabel="share of such pairs (%)", xlim=(0, edges[-1]))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.suptitle(title, parse_math=False)
    save(figure, path)


def _colours(count: int) -> np.ndarray:
    from matplotlib import colormaps

    return colormaps["turbo"](np.linspace(0.02, 0.98, count))
