"""`folder:DIR`: image files in a folder for each class, as torchvision's ImageFolder reads them."""

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from cnn_jax import storage
from cnn_jax.data.dataset import Collection
from cnn_jax.data.decode import BadImage
from cnn_jax.errors import LostData, Unavailable, UserError, lasting, of_system

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
MAX_BYTES = 2**30  # of a file; an image of the most pixels that are decoded takes half of that at most
SPLITS = ("train", "val", "valid", "validation", "test")


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Files by their paths below `root`, with (N,) labels."""

    root: str
    files: tuple[str, ...]
    labels: np.ndarray
    remote: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> list[tuple[bytes, int]]:
        return [(read_file(self._path(i)), int(self.labels[i])) for i in indices]

    def place(self, index: int) -> str:
        return printable(self._path(index))

    def _path(self, index: int) -> str:
        return os.path.join(self.root, self.files[index])


def read_file(path: str) -> bytes:
    """What is in a regular file.

    Raises:
      BadImage: it cannot be read, is no regular file or a very large one.
      LostData: storage did not give it, also when asked again.
    """
    told = f"{printable(path)} cannot be read"
    try:
        return storage.patiently(partial(_content, path), told)
    except Unavailable as lost:
        raise LostData(str(lost)) from None
    except OSError as error:
        if lasting(error) and error.errno != errno.EMFILE:
            raise BadImage(f"cannot be read ({error.strerror})") from None
        raise of_system(told, error) from None


def _content(path: str) -> bytes:
    """Of a regular file: another, such as a pipe or a device, might never come to its end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise BadImage("is no regular file")
        if about.st_size > MAX_BYTES:
            raise BadImage(f"has {about.st_size:,} bytes, more than {MAX_BYTES:,}")
        return file.read()


def open_folder(path: str) -> Collection:
    """Images in DIR/SPLIT/CLASS/ or, as split "train", in DIR/CLASS/, where SPLIT is train, val, test or alike.

    Classes are the names of the class folders of all splits, sorted; a class's images are its files
    with one of EXTENSIONS, at any depth, sorted. A link to a folder is followed, but each folder is taken once.
    Sizes are not known before the images are read.

    Raises:
      UserError: no such folder, or no class folders in it; on opening a split: a class without images.
    """
    if not path.strip():
        raise UserError("folder: names no directory; images lie in folder:DIR/CLASS/ or folder:DIR/train/CLASS/")
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
    return Collection(f"folder:{path}", tuple(map(printable, classes)), (None, None, 3), openers)


def _open_split(folder: Path, classes: list[str]) -> FolderSource:
    files, labels = [], []
    names = {_identity(folder / name): name for name in _subfolders(folder)}
    seen = {_identity(folder), *names}
    for name in _subfolders(folder):
        if (same := names[_identity(folder / name)]) != name:
            raise UserError(f"class folders {printable(str(folder / name))} and {printable(same)} are one folder")
        found = [path[len(str(folder)) + 1 :] for path in _images(folder / name, seen)]
        if not found:
            raise UserError(f"class folder {printable(str(folder / name))} has no images ({', '.join(EXTENSIONS)})")
        files += found
        labels += [classes.index(name)] * len(found)
    return FolderSource(str(folder), tuple(files), np.array(labels, np.int32))


def image_files(folder: str) -> list[str]:
    """Paths of the files with one of EXTENSIONS below a folder, at any depth, sorted; each folder is taken once."""
    return _images(folder, {_identity(folder)})


def _images(folder: str | Path, seen: set[tuple[int, int]]) -> list[str]:
    return [
        os.path.join(parent, file)
        for parent, names in sorted(_walk(folder, seen))
        for file in sorted(names)
        if file.lower().endswith(EXTENSIONS)
    ]


def _walk(folder: str | Path, seen: set[tuple[int, int]]) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it that were not `seen`, with their files; a link may lead back to one above."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        for name in [*folders]:
            path = os.path.join(parent, name)
            if (identity := _identity(path)) in seen:
                print(f"{printable(path)} leads to a folder that is taken already; left out", file=sys.stderr)
                folders.remove(name)
            seen.add(identity)
        yield parent, files


def _identity(path: str | Path) -> tuple[int, int]:
    about = os.stat(path)
    return about.st_dev, about.st_ino


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text, also where its name is none."""
    return os.fsencode(path).decode(errors="replace")
