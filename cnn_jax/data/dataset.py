"""One split of a data set: random access to its images, wherever they lie."""

import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from tqdm import tqdm

from cnn_jax.data.decode import BadImage, decode
from cnn_jax.errors import BadData, UserError, did_you_mean

READ_CHUNK = 1_000  # records a read; a progress step
FINGERPRINTED = 100  # records behind a fingerprint

Shape = tuple[int | None, int | None, int]
Labels = Literal["class", "captions", "mask"]
Label = int | np.ndarray  # a class, or an array of classes: the words of captions, or those of a mask's pixels
Record = tuple[bytes | np.ndarray, Label]  # an image, as an encoded file or (H, W, C) uint8, and a label
IGNORED = 255  # in a mask: no class is known; PASCAL VOC's void, and what torchvision and mmsegmentation leave out
PAD, START, END, UNKNOWN = range(4)  # in captions: the first words of every vocabulary
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")  # what they are called


class Source(Protocol):
    """A kind of storage: picklable, safe to read from many threads, silent about TensorFlow."""

    @property
    def remote(self) -> bool:
        """Whether a read is a request over the network, so that many at once take hardly longer than one."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Sequence[Record]:
        """What lies at each index.

        Raises:
          BadImage: of one index, if its record cannot be read.
          LostData: storage did not give it, also when asked again.
        """
        ...

    def place(self, index: int) -> str:
        """Where a record lies, for a message: file and record."""
        ...


@dataclass(frozen=True)
class Collection:
    """A data set with all its splits; none is read before it is asked for.

    `splits` opens a split by its name, in the set's own order. `shape`, `labelled` and `label_shape` are those of
    Dataset.
    """

    name: str
    classes: tuple[str, ...]
    shape: Shape
    splits: Mapping[str, Callable[[], Source]]
    labelled: Labels = "class"
    label_shape: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)  # arrays do not compare to one truth
class Dataset:
    """Images (H, W, C) with one label each, whose values are in [0, len(classes)).

    `shape` has None where images differ. `labelled` says what a label is: "class", a number; "captions", the words of R
    references, `label_shape` (R, T), with 0 behind their ends; "mask", the classes of pixels, (H, W), or IGNORED.
    `indices` are the records of `source` that the split
    takes, in its order; all of them if None.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    shape: Shape
    source: Source
    indices: np.ndarray | None = None
    labelled: Labels = "class"
    label_shape: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.source) if self.indices is None else len(self.indices)

    def select(self, indices: np.ndarray, split: str) -> "Dataset":
        """The records at `indices` of this split, in that order, as a split of its own."""
        return replace(self, split=split, indices=indices if self.indices is None else self.indices[indices])

    def of_classes(self, names: Sequence[str]) -> "Dataset":
        """The images of some classes, by names or numbers, whose labels stay as they are.

        Raises:
          UserError: no such class; there is no image of them; labels are no classes.
        """
        if self.labelled != "class":
            raise UserError(f"{self.name} has no classes of whole images to choose from")
        wanted = []
        for name in names:
            if name not in self.classes and not (name.isdecimal() and int(name) < len(self.classes)):
                raise UserError(did_you_mean(f"class of {self.name}", name, self.classes))
            wanted.append(self.classes.index(name) if name in self.classes else int(name))
        found = np.flatnonzero(np.isin(self.labels_alone(), wanted))
        if not len(found):
            raise UserError(f"no image of {self.name} {self.split} is of the classes {', '.join(names)}")
        return self.select(found.astype(np.int32), self.split)

    def labels_alone(self) -> np.ndarray:
        """All labels, (N,) int32, without decoding an image; 0 for a record that cannot be read."""
        labels = np.zeros(len(self), np.int32)
        for start in range(0, len(self), READ_CHUNK):
            for index, record in enumerate(self.read_each(range(start, min(start + READ_CHUNK, len(self)))), start):
                labels[index] = 0 if isinstance(record, BadImage) else record[1]
        return labels

    def read(self, indices: Sequence[int]) -> Sequence[Record]:
        """Images as they are stored, encoded or (H, W, C) uint8, with their labels.

        Raises:
          BadImage: of one index: its record cannot be read; of several: one of theirs cannot.
          BadData: a label is none of the classes; with its place. LostData: storage does not answer.
        """
        records = self.source.read([self._record(i) for i in indices])
        for index, (_, label) in zip(indices, records, strict=True):
            wrong = self._wrong(label)
            if wrong is not None:
                raise BadData(
                    f"{self.place(index)} has label {wrong}, not 0 to {len(self.classes) - 1}; "
                    f"is {self.split} a split without labels?"
                )
        return records

    def pixels(self, index: int) -> np.ndarray:
        """Image `index`, (H, W, C) uint8.

        Raises:
          BadImage: it cannot be decoded.
        """
        return decode(self.read([index])[0][0], self.shape[2])

    def read_each(self, indices: Sequence[int]) -> list[Record | BadImage]:
        """As `read`, with what is wrong in the place of a record that cannot be read."""
        try:
            return list(self.read(indices))
        except BadImage as bad:
            return [bad] if len(indices) == 1 else [found for i in indices for found in self.read_each([i])]

    def place(self, index: int) -> str:
        """Where image `index` lies, for a message."""
        return self.source.place(self._record(index))

    @property
    def remote(self) -> bool:
        """Whether many images are better read at once than one by one."""
        return self.source.remote

    @property
    def fixed_size(self) -> bool:
        """Whether all images have one known size."""
        return None not in self.shape

    @property
    def images(self) -> np.ndarray:
        """All images, (N, H, W, C) uint8, read once and kept.

        Raises:
          UserError: they differ in size, or one cannot be read.
        """
        return self._arrays[0]

    @property
    def labels(self) -> np.ndarray:
        """All labels, (N, *label_shape), read with the images."""
        return self._arrays[1]

    @property
    def label_dtype(self) -> np.dtype:
        """uint8 of masks, else int32."""
        return np.dtype(np.uint8 if self.labelled == "mask" else np.int32)

    @cached_property
    def fingerprint(self) -> str:
        """What tells this data from other data of the same name: its size and a checksum of some images."""
        checksum = 0
        for index in np.unique(np.linspace(0, len(self) - 1, FINGERPRINTED).astype(int)).tolist():
            try:
                ((image, label),) = self.read([index])
                pixels = decode(image, self.shape[2])
            except BadImage as bad:
                checksum = zlib.crc32(str(bad).encode(), checksum)
            else:
                checksum = zlib.crc32(pixels.tobytes(), zlib.crc32(_bytes(label), checksum))
        return f"{len(self)} images, crc32 {checksum:08x}"

    def _wrong(self, label: Label) -> int | None:
        """A value of a label that is none of the classes."""
        if isinstance(label, np.ndarray):
            known = label < len(self.classes)
            if self.labelled == "mask":
                known |= label == IGNORED
            return None if known.all() and label.min(initial=0) >= 0 else int(label[~known | (label < 0)][0])
        return None if 0 <= label < len(self.classes) else label

    def _record(self, index: int) -> int:
        return int(index) if self.indices is None else int(self.indices[index])

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        def refuse(index: int, told: str) -> None:
            raise UserError(told)

        return self.load(refuse)

    def load(self, on_bad: Callable[[int, str], None]) -> tuple[np.ndarray, np.ndarray]:
        """All images (N, H, W, C) uint8 and labels (N, *label_shape) of label_dtype, with progress on a terminal.

        `on_bad(index, told)` is called for each bad image, whose place stays 0.

        Raises:
          UserError: images of several sizes, or none that is good; and what `on_bad` raises.
        """
        images, labels = None, np.zeros((len(self), *self.label_shape), self.label_dtype)
        chunks = range(0, len(self), READ_CHUNK)
        quiet = len(chunks) < 20 or not sys.stderr.isatty()
        for start in tqdm(chunks, f"reading {self.name} {self.split}", disable=quiet):
            indices = range(start, min(start + READ_CHUNK, len(self)))
            for index, record in zip(indices, self.read_each(indices), strict=True):
                try:
                    if isinstance(record, BadImage):
                        raise record
                    image, labels[index] = record
                    pixels = decode(image, self.shape[2])
                except BadImage as bad:
                    on_bad(index, f"{self.place(index)} {bad}")
                    continue
                if images is None:
                    images = np.zeros((len(self), *pixels.shape), np.uint8)
                if pixels.shape != images.shape[1:]:
                    raise UserError(
                        f"{self.name} has images of many sizes ({_size(images.shape[1:])} and {_size(pixels.shape)}), "
                        f"which are not kept as one array; --engine host decodes them as they are needed"
                    )
                images[index] = pixels
        if images is None:
            raise UserError(f"no image of {self.name} {self.split} can be decoded")
        return images, labels


def _bytes(label: Label) -> bytes:
    return label.astype(np.int32).tobytes() if isinstance(label, np.ndarray) else label.to_bytes(4, "big")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
