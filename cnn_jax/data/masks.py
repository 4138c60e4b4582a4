"""`masks:DIR`: images with a class for each pixel, and any such set brought to one size."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from cnn_jax.data.dataset import IGNORED, Collection, Dataset, Label, Record, Source
from cnn_jax.data.decode import BadImage, decode, open_image
from cnn_jax.data.folder import image_files, printable, read_file
from cnn_jax.errors import UserError, first_line

LAYOUT = "images lie in DIR/images/SPLIT/, their masks under the same names in DIR/masks/SPLIT/NAME.png"
CLASSES = "classes.txt"


@dataclass(frozen=True, eq=False)
class MaskSource:
    """Image files with the files of their masks, paths."""

    images: tuple[str, ...]
    masks: tuple[str, ...]
    remote: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Sequence[int]) -> list[tuple[bytes, np.ndarray]]:
        """Encoded images with masks (H, W) uint8."""
        return [(read_file(self.images[i]), read_mask(self.masks[i])) for i in indices]

    def place(self, index: int) -> str:
        return printable(self.images[index])


@dataclass(frozen=True, eq=False)
class Resized:
    """The records of another source, images and masks of `size` x `size` pixels."""

    source: Source
    size: int
    channels: int

    @property
    def remote(self) -> bool:
        return self.source.remote

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> list[Record]:
        return [self._resized(*record) for record in self.source.read(indices)]

    def place(self, index: int) -> str:
        return self.source.place(index)

    def _resized(self, image: bytes | np.ndarray, mask: Label) -> Record:
        from PIL import Image

        pixels = decode(image, self.channels)
        if np.shape(mask) != pixels.shape[:2]:
            raise BadImage(f"is {_size(pixels.shape)}, and its mask {_size(np.shape(mask))}")
        target, grey = (self.size, self.size), self.channels == 1
        picture = Image.fromarray(pixels[:, :, 0] if grey else pixels).resize(target, Image.Resampling.BILINEAR)
        classes = Image.fromarray(np.asarray(mask, np.uint8)).resize(target, Image.Resampling.NEAREST)
        return np.asarray(picture).reshape(*target, self.channels), np.asarray(classes)


def open_masks(path: str) -> Collection:
    """DIR/images/SPLIT/NAME.jpg, or another of folder.EXTENSIONS, with DIR/masks/SPLIT/NAME.png, at any depth.

    A mask is a grey or palette image of its image's size; a pixel's value is its class, 255 is left out everywhere.
    The lines of DIR/classes.txt name the classes; without it they are 0 to the highest value, for which all masks are
    read once. Sizes of images are not known before they are read; `resized` brings them to one.

    Raises:
      UserError: no such folders, an image without a mask or a mask without an image, or names that are none.
    """
    root = Path(path).expanduser()
    folders = [root / "images", root / "masks"]
    if not path.strip() or not all(folder.is_dir() for folder in folders):
        raise UserError(f"masks:{path} has no folders images and masks; {LAYOUT}")
    splits = sorted(entry.name for entry in os.scandir(folders[0]) if entry.is_dir())
    if not splits:
        raise UserError(f"masks:{path} has no splits; {LAYOUT}")
    openers = {split: partial(_open_split, *(folder / split for folder in folders)) for split in splits}
    if (root / CLASSES).exists():
        classes = _names(root / CLASSES)
    else:
        files = [mask for opener in openers.values() for mask in opener().masks]
        highest = max((int(values[values != IGNORED].max(initial=0)) for values in map(_told, files)), default=0)
        classes = tuple(map(str, range(highest + 1)))
    return Collection(f"masks:{path}", classes, (None, None, 3), openers, "mask", (None, None))


def resized(dataset: Dataset, size: int) -> Dataset:
    """A set of images and masks with all of them `size` x `size` pixels, whatever their proportions.

    Images are resized bilinearly and smoothed where they shrink, as Pillow does; masks have the nearest pixel's class.
    Reading raises BadImage also where a mask has another size than its image.
    """
    source = Resized(dataset.source, size, dataset.shape[2])
    return replace(dataset, source=source, shape=(size, size, dataset.shape[2]), label_shape=(size, size))


def read_mask(path: str) -> np.ndarray:
    """A file's classes, (H, W) uint8.

    Raises:
      BadImage: it is no grey or palette image, or cannot be read.
    """
    try:
        with open_image(read_file(path)) as opened:
            if opened.mode not in ("P", "L", "1"):
                raise BadImage(f"is of mode {opened.mode}; a pixel's class is its value in a grey or palette image")
            return np.asarray(opened).astype(np.uint8)
    except BadImage as bad:
        raise BadImage(f"has a mask, {printable(path)}, that {bad}") from None
    except Exception as error:  # Pillow's plugins raise what they like for damaged files
        if isinstance(error, UserError):  # storage
            raise
        raise BadImage(f"has a mask, {printable(path)}, that is no readable image ({first_line(error)})") from None


def _open_split(images: Path, masks: Path) -> MaskSource:
    def by_name(folder: Path) -> dict[str, str]:
        files = image_files(str(folder)) if folder.is_dir() else []
        return {os.path.splitext(os.path.relpath(file, folder))[0]: file for file in files}

    pictures, drawn = by_name(images), by_name(masks)
    drawn = {name: file for name, file in drawn.items() if file.lower().endswith(".png")}
    for name in sorted({*pictures} ^ {*drawn}):
        if name in pictures:
            raise UserError(f"{printable(pictures[name])} has no mask {printable(str(masks / name))}.png")
        raise UserError(f"{printable(drawn[name])} is a mask without an image in {printable(str(images))}")
    if not pictures:
        raise UserError(f"{printable(str(images))} has no images; {LAYOUT}")
    names = sorted(pictures)
    return MaskSource(tuple(pictures[name] for name in names), tuple(drawn[name] for name in names))


def _told(path: str) -> np.ndarray:
    try:
        return read_mask(path)
    except BadImage as bad:
        raise UserError(f"{printable(path)}: an image that {bad}; {CLASSES} would save reading it") from None


def _names(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").strip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{printable(path)} cannot be read ({first_line(error)}); it is text, a class on each line"
        ) from None
    if not names or len(names) > IGNORED or not all(names) or len({*names}) < len(names):
        raise UserError(f"{printable(path)} must name 1 to {IGNORED} different classes, one on each line")
    return names


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
