"""Data sets in memory: `.npz` files, and `synthetic:HxWxCLASSES`, drawn from nothing."""

import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cnn_jax.data.dataset import Collection, Shape
from cnn_jax.errors import UserError, first_line

SYNTHETIC_SPLITS = {"train": 10_000, "test": 1_000}  # images
PATCH = 8  # pixels of one colour in a row of a synthetic image


@dataclass(frozen=True, eq=False)
class ArraySource:
    """`images` (N, H, W, C) uint8 with `labels` (N,); `origin` says in messages where they come from."""

    images: np.ndarray
    labels: np.ndarray
    origin: str

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        return [(self.images[i], int(self.labels[i])) for i in indices]

    def place(self, index: int) -> str:
        return f"image {index} of {self.origin}"


def of_sources(name: str, classes: tuple[str, ...], sources: dict[str, ArraySource]) -> Collection:
    """A data set of the splits `sources`, all in grey or all in colour."""
    shapes = {source.images.shape[1:] for source in sources.values()}
    shape: Shape = shapes.pop() if len(shapes) == 1 else (None, None, max(shape[-1] for shape in shapes))
    return Collection(name, classes, shape, {split: partial(sources.__getitem__, split) for split in sources})


def open_npz(path: str) -> Collection:
    """A file of arrays: x_SPLIT and y_SPLIT (as Keras), SPLIT_images and SPLIT_labels, or images and labels ("train").

    Images are (N, H, W) or (N, H, W, C) uint8 in grey or RGB, labels (N,) or (N, 1) whole numbers.
    The array `classes` names the classes; without it they are 0, 1, ...

    Raises:
      UserError: no such file, no such arrays in it, or arrays that are no images and labels.
    """
    arrays = _load(path)
    pairs = _pairs(arrays)
    if not pairs:
        raise UserError(
            f"{path} has {', '.join(arrays) or 'no arrays'}, not x_train and y_train, train_images and train_labels, "
            f"or images and labels"
        )
    sources = {split: _source(path, arrays, *keys) for split, keys in pairs.items()}
    highest = max(int(source.labels.max(initial=-1)) for source in sources.values())
    classes = tuple(map(str, arrays.get("classes", np.arange(highest + 1)).ravel().tolist()))
    for split, source in sources.items():
        if source.labels.min(initial=0) < 0 or highest >= len(classes):
            low, high = source.labels.min(), source.labels.max()
            raise UserError(f"{path}: {pairs[split][1]} goes from {low} to {high}, not 0 to {len(classes) - 1}")
    return of_sources(path, classes, sources)


def _load(path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or first_line(error)}") from None
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is no whole .npz file of plain arrays ({first_line(error)})") from None


def _pairs(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The names of images and labels for each split."""
    found = {}
    for name in names:
        for pattern, labels in ((r"x_(\w+)", "y_{}"), (r"(\w+)_images", "{}_labels"), (r"images()", "labels")):
            match = re.fullmatch(pattern, name)
            if match and labels.format(match[1]) in names:
                found[match[1] or "train"] = (name, labels.format(match[1]))
    return found


def _source(path: str, arrays: dict[str, np.ndarray], images_key: str, labels_key: str) -> ArraySource:
    images, labels = arrays[images_key], arrays[labels_key]
    images = images[..., None] if images.ndim == 3 else images
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UserError(
            f"{path}: {images_key} is {arrays[images_key].shape} {images.dtype}; images are (N, H, W) or (N, H, W, C) "
            f"uint8, 0 to 255, with 1 or 3 channels last"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(
            f"{path}: {labels_key} is {arrays[labels_key].shape} {labels.dtype}; "
            f"{images_key} needs {len(images)} whole numbers"
        )
    return ArraySource(images, labels.astype(np.int64), f"{path} {images_key}")


@dataclass(frozen=True)
class SyntheticSource:
    """`length` images of one size, each drawn from `seed` and its number alone, as often as it is read."""

    height: int
    width: int
    classes: int
    length: int
    seed: int

    def __len__(self) -> int:
        return self.length

    def read(self, indices: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        return [(self._draw(int(i)), int(i) % self.classes) for i in indices]

    def place(self, index: int) -> str:
        return f"synthetic image {index}"

    def _draw(self, index: int) -> np.ndarray:
        patches = (-(-self.height // PATCH), -(-self.width // PATCH), 3)
        colour = np.random.default_rng(index % self.classes).integers(0, 128, 3, np.uint8)
        drawn = np.random.default_rng((self.seed, index)).integers(0, 128, patches, np.uint8) + colour
        return drawn.repeat(PATCH, 0).repeat(PATCH, 1)[: self.height, : self.width]


def open_synthetic(spec: str) -> Collection:
    """Coloured patches about a colour of their class, the same ones always: SYNTHETIC_SPLITS, labels in turn.

    `spec` is HEIGHTxWIDTHxCLASSES.

    Raises:
      UserError: `spec` is not like that.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})x([1-9]\d{0,4})", spec)
    if not match:
        raise UserError(f"synthetic:{spec} is not like synthetic:224x224x1000, height x width x classes")
    height, width, classes = map(int, match.groups())
    openers = {
        split: partial(SyntheticSource, height, width, classes, length, seed)
        for seed, (split, length) in enumerate(SYNTHETIC_SPLITS.items())
    }
    return Collection(f"synthetic:{spec}", tuple(map(str, range(classes))), (height, width, 3), openers)
