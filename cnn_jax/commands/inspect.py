"""What is in a data set: sizes, kinds of files, balance of classes, mean and deviation, bad images, a picture."""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cnn_jax.data import splits
from cnn_jax.data.dataset import Dataset, Record, Source
from cnn_jax.data.decode import BadImage, decode, open_image
from cnn_jax.data.host import cores
from cnn_jax.data.sources import open_collection
from cnn_jax.errors import UserError, of_system
from cnn_jax.tables import aligned

PICTURED = 40  # images
LISTED = 20  # classes or bad images that are told one by one
CHUNK = 64  # images a thread takes at a time


@dataclass(frozen=True)
class Look:
    """One image: `labels` are its class, or those in its mask or captions, `kind` is its file format and colours,
    `moments` (2, C) the sums of x and x^2, x in [0, 1]."""

    index: int
    labels: list[int]
    size: tuple[int, int]
    bytes: int
    kind: str
    moments: np.ndarray


def inspect(
    name: str,
    split: str | None = None,
    data_dir: str | os.PathLike | None = None,
    limit: int | None = None,
    out: Path | None = None,
) -> str:
    """A report in lines on a split, train or the first one if not given; names are those of open_dataset.

    `limit` looks at so many images only, evenly spaced. A grid of samples goes to `out`, by default
    inspect-NAME.png.

    Raises:
      UserError: as open_dataset, a label out of range, or `out` cannot be written.
    """
    collection = open_collection(name, data_dir)
    dataset = splits.take(collection, split or min(collection.splits, key=lambda name: name != "train"))
    count = min(limit or len(dataset), len(dataset))
    if out is not None and out.suffix.lower() != ".png":
        raise UserError(f"--out {out} must end in .png")
    looks, bad = look(dataset, np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist())
    rows = [
        ("data set", name),
        ("splits", ", ".join(f"{split} {_size(open_split)}" for split, open_split in collection.splits.items())),
        ("looked at", f"{count:,} of {len(dataset):,} images of {dataset.split}"),
    ]
    if looks:
        rows += [
            *_figures(looks),
            *_balance(dataset.classes, np.array([label for one in looks for label in one.labels])),
        ]
    rows += [("bad images", f"{len(bad):,}")] + [("", told) for told in bad[:LISTED]]
    if looks:
        plain = re.sub(r"[^\w.]+", "-", name)
        rows.append(("picture", _draw(dataset, looks, out or Path(f"inspect-{plain}.png"))))
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:{width}}  {value}" for label, value in rows)


def _size(open_split: Callable[[], Source]) -> str:
    try:
        return f"{len(open_split()):,}"
    except UserError as error:
        return f"({error})"


def look(dataset: Dataset, indices: list[int]) -> tuple[list[Look], list[str]]:
    """Decodes images by threads, with progress on a terminal: the good ones, and what is wrong with the others."""
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    with ThreadPoolExecutor(cores()) as pool:
        done = pool.map(lambda chunk: list(map(partial(_look, dataset), chunk, dataset.read_each(chunk))), chunks)
        found = []
        with tqdm(None, "looking", len(indices), unit=" images", disable=not sys.stderr.isatty()) as progress:
            for chunk in done:
                found += chunk
                progress.update(len(chunk))
    return [one for one in found if isinstance(one, Look)], [one for one in found if isinstance(one, str)]


def _look(dataset: Dataset, index: int, record: Record | BadImage) -> Look | str:
    try:
        if isinstance(record, BadImage):
            raise record
        image, label = record
        pixels = decode(image, dataset.shape[2])
    except BadImage as error:
        return f"{dataset.place(index)} {error}"
    values = pixels.reshape(-1, pixels.shape[2]) / np.float32(255)
    moments = np.stack([values.sum(0, dtype=np.float64), np.square(values).sum(0, dtype=np.float64)])
    size = image.nbytes if isinstance(image, np.ndarray) else len(image)
    labels = [known for known in np.unique(label).tolist() if known < len(dataset.classes)]
    return Look(index, labels, pixels.shape[:2], size, _kind(image), moments)


def _kind(image: bytes | np.ndarray) -> str:
    if isinstance(image, np.ndarray):
        return f"arrays of {image.shape[2]} channel{'s' * (image.shape[2] > 1)}"
    with open_image(image) as opened:
        return f"{opened.format} {opened.mode}"


def _figures(looks: list[Look]) -> list[tuple[str, str]]:
    heights, widths = np.array([one.size for one in looks]).T
    bytes_ = np.array([one.bytes for one in looks])
    kinds = Counter(one.kind for one in looks).most_common()
    mean, square = sum(one.moments for one in looks) / (heights * widths).sum()
    return [
        ("height", _range(heights)),
        ("width", _range(widths)),
        ("bytes", f"{_range(bytes_)}; {bytes_.sum():,} in all"),
        ("kinds", ", ".join(f"{kind} {count:,}" for kind, count in kinds)),
        ("mean", " ".join(f"{value:.4f}" for value in mean)),
        ("std", " ".join(f"{value:.4f}" for value in np.sqrt(np.maximum(square - mean**2, 0)))),
    ]


def _range(values: np.ndarray) -> str:
    low, middle, high = values.min(), np.median(values), values.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}, median {middle:,.0f}"


def _balance(classes: tuple[str, ...], labels: np.ndarray) -> list[tuple[str, str]]:
    counts = np.bincount(labels, minlength=len(classes))
    order = range(len(classes)) if len(classes) <= LISTED else np.argsort(-counts, kind="stable")
    table = aligned([("class", "images"), *((classes[i], f"{counts[i]:,}") for i in order)]).splitlines()
    if len(classes) > LISTED:
        table[1 + LISTED // 2 : -LISTED // 2] = ["..."]
    told = f"{len(classes):,}, of {_range(counts)} images each" + (f", {(counts == 0).sum():,} of none" * (0 in counts))
    return [("classes", told), *(("", line) for line in table[1:])]


def _draw(dataset: Dataset, looks: list[Look], path: Path) -> str:
    try:
        from cnn_jax.visualize import draw_samples
    except ImportError:
        return "none (pip install matplotlib)"
    by_class = sorted(looks, key=lambda one: one.labels)
    shown = [by_class[i] for i in np.unique(np.linspace(0, len(by_class) - 1, PICTURED).astype(int))]
    images = [decode(dataset.read([one.index])[0][0], dataset.shape[2]) for one in shown]
    try:
        draw_samples(
            images,
            [", ".join(dataset.classes[label] for label in one.labels) for one in shown],
            path,
            f"{dataset.name} {dataset.split}",
        )
    except OSError as error:
        raise of_system(f"cannot write {path}", error) from None
    return str(path)
