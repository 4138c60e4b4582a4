"""`folder:DIR`: image files in a folder for each class, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cnn_jax.data.dataset import Collection
from cnn_jax.data.decode import BadImage
from cnn_jax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
SPLITS = ("train", "val", "valid", "validation", "test")


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Files by their paths below `root`, with (N,) labels."""

    root: str
    files: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> list[tuple[bytes, int]]:
        return [(self._bytes(i), int(self.labels[i])) for i in indices]

    def place(self, index: int) -> str:
        return _printable(self._path(index))

    def _path(self, index: int) -> str:
        return os.path.join(self.root, self.files[index])

    def _bytes(self, index: int) -> bytes:
        try:
            with open(self._path(index), "rb") as file:
                return file.read()
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror})") from None


def open_folder(path: str) -> Collection:
    """Images in DIR/SPLIT/CLASS/ or, as split "train", in DIR/CLASS/, where SPLIT is train, val, test or alike.

    Classes are the names of the class folders of all splits, sorted; a class's images are its files
    with one of EXTENSIONS, at any depth, sorted. Sizes are not known before the images are read.

    Raises:
      UserError: no such folder, or no class folders in it; on opening a split: a class without images.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"folder:{path}: {root} is not a directory")
    splits = {name: root / name for name in _subfolders(root)}
    if not any(name in SPLITS and _subfolders(folder) for name, folder in splits.items()):
        splits = {"train": root}
    classes = sorted({name for folder in splits.values() for name in _subfolders(folder)})
    if not classes:
        raise UserError(f"folder:{path} has no class folders; images lie in DIR/CLASS/ or DIR/train/CLASS/")
    openers = {split: partial(_open_split, folder, classes) for split, folder in splits.items()}
    return Collection(f"folder:{path}", tuple(map(_printable, classes)), (None, None, 3), openers)


def _open_split(folder: Path, classes: list[str]) -> FolderSource:
    files, labels = [], []
    for name in _subfolders(folder):
        found = [
            os.path.join(parent, file)[len(str(folder)) + 1 :]
            for parent, _, names in sorted(os.walk(folder / name, followlinks=True))
            for file in sorted(names)
            if file.lower().endswith(EXTENSIONS)
        ]
        if not found:
            raise UserError(f"class folder {_printable(str(folder / name))} has no images ({', '.join(EXTENSIONS)})")
        files += found
        labels += [classes.index(name)] * len(found)
    return FolderSource(str(folder), tuple(files), np.array(labels, np.int32))


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _printable(path: str) -> str:
    return os.fsencode(path).decode(errors="replace")
