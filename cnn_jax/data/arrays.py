"""Data sets in memory: `.npz` files, and `synthetic:HxWxCLASSES`, drawn from nothing."""

import contextlib
import math
import os
import re
import zipfile
import zlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from cnn_jax.data.dataset import Collection, Shape
from cnn_jax.errors import UserError, first_line, of_system

SYNTHETIC_SPLITS = {"train": 10_000, "test": 1_000}  # images
MOST_CLASSES = 100_000  # more than any set of images has; a label that is none would make as many
MOST_PIXELS = 10_000  # of a synthetic image's side
ENCRYPTED = 1  # in the flags of a zip's member
# What zipfile and NumPy raise for a damaged file.
DAMAGED = (TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError)
PATCH = 8  # pixels of one colour in a row of a synthetic image


@dataclass(frozen=True, eq=False)
class ArraySource:
    """`images` (N, H, W, C) uint8 with `labels` (N,); `origin` says in messages where they come from."""

    images: np.ndarray
    labels: np.ndarray
    origin: str
    remote: ClassVar[bool] = False

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

    Images are (N, H, W) or (N, H, W, C) uint8 in grey or RGB, labels (N,) or (N, 1) whole numbers below MOST_CLASSES.
    The array `classes` names the classes; without it they are 0, 1, ... What the file says of its arrays is checked
    before any is read; others than these are not.

    Raises:
      UserError: no such file, no such arrays in it, or arrays that are no images and labels.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is no file")
    with _telling(path), zipfile.ZipFile(path) as file:
        members = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
        pairs = _pairs(members)
        if not pairs:
            raise UserError(
                f"{path} has {', '.join(members) or 'no arrays'}, not x_train and y_train, train_images and "
                f"train_labels, or images and labels"
            )
        used = {name: members[name] for pair in pairs.values() for name in pair}
        used |= {name: info for name, info in members.items() if name == "classes"}
        heads = {name: _head(path, file, name, info) for name, info in used.items()}
        for images, labels in pairs.values():
            _check(path, images, heads[images], labels, heads[labels])
        size, memory = (
            sum(info.file_size for info in used.values()),
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        )
        if size > memory:
            raise UserError(f"{path} holds {size:,} bytes of arrays, more than this machine's memory of {memory:,}")
        arrays = {name: _array(file, info) for name, info in used.items()}
    sources = {split: _source(path, arrays, *keys) for split, keys in pairs.items()}
    highest = max(int(source.labels.max(initial=-1)) for source in sources.values())
    if "classes" not in arrays and highest >= MOST_CLASSES:
        raise UserError(f"{path} has a label {highest}; labels are numbers of classes, below {MOST_CLASSES:,}")
    classes = tuple(map(str, arrays.get("classes", np.arange(highest + 1)).ravel().tolist()))
    for split, source in sources.items():
        if source.labels.min(initial=0) < 0 or highest >= len(classes):
            low, high = source.labels.min(), source.labels.max()
            raise UserError(f"{path}: {pairs[split][1]} goes from {low} to {high}, not 0 to {len(classes) - 1}")
    return of_sources(path, classes, sources)


@contextlib.contextmanager
def _telling(path: str) -> Generator[None]:
    """What reading a zip of arrays raises, in one line."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise of_system(f"cannot read {path}", error) from None
    except (*DAMAGED, ValueError) as error:
        raise UserError(f"{path} is no whole .npz file of plain arrays ({first_line(error)})") from None


def _head(path: str, file: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, if its file can hold it."""
    if info.flag_bits & ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{path}: {name} is encrypted or compressed in a way that np.savez does not write")
    with file.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
        shape, _, dtype = read(member)
        start = member.tell()
    if dtype.hasobject:
        raise UserError(f"{path}: {name} holds Python objects; only plain arrays are read")
    told = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or start + told != info.file_size:
        raise UserError(
            f"{path}: {name} says that it is {shape} {dtype}, but has {info.file_size - start:,} bytes of that"
        )
    return shape, dtype


def _array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with file.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _pairs(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The names of images and labels for each split."""
    found = {}
    for name in names:
        for pattern, labels in ((r"x_(\w+)", "y_{}"), (r"(\w+)_images", "{}_labels"), (r"images()", "labels")):
            match = re.fullmatch(pattern, name)
            if match and labels.format(match[1]) in names:
                found[match[1] or "train"] = (name, labels.format(match[1]))
    return found


def _check(path: str, images_key: str, images: tuple, labels_key: str, labels: tuple) -> None:
    """Raises a UserError if arrays of such shapes and types are no images and their labels."""
    (shape, dtype), (labels_shape, labels_dtype) = images, labels
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
        raise UserError(
            f"{path}: {images_key} is {shape} {dtype}; images are (N, H, W) or (N, H, W, C) uint8, 0 to 255, with 1 "
            f"or 3 channels last"
        )
    if labels_shape not in (shape[:1], (*shape[:1], 1)) or labels_dtype.kind not in "iu":
        raise UserError(
            f"{path}: {labels_key} is {labels_shape} {labels_dtype}; {images_key} needs {shape[0]} whole numbers"
        )


def _source(path: str, arrays: dict[str, np.ndarray], images_key: str, labels_key: str) -> ArraySource:
    images, labels = arrays[images_key], arrays[labels_key].ravel().astype(np.int64)
    return ArraySource(images[..., None] if images.ndim == 3 else images, labels, f"{path} {images_key}")


@dataclass(frozen=True)
class SyntheticSource:
    """`length` images of one size, each drawn from `seed` and its number alone, as often as it is read."""

    height: int
    width: int
    classes: int
    length: int
    seed: int
    remote: ClassVar[bool] = False

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
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", spec)
    if not match:
        raise UserError(f"synthetic:{spec} is not like synthetic:224x224x1000, height x width x classes")
    height, width, classes = map(int, match.groups())
    if not (0 < height <= MOST_PIXELS and 0 < width <= MOST_PIXELS and 0 < classes <= MOST_CLASSES):
        raise UserError(f"synthetic:{spec}: sides go from 1 to {MOST_PIXELS:,}, classes from 1 to {MOST_CLASSES:,}")
    openers = {
        split: partial(SyntheticSource, height, width, classes, length, seed)
        for seed, (split, length) in enumerate(SYNTHETIC_SPLITS.items())
    }
    return Collection(f"synthetic:{spec}", tuple(map(str, range(classes))), (height, width, 3), openers)
