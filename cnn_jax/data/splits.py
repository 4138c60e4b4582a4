"""Splits as TFDS writes them, for every kind of storage: train, train[:90%], test[10:20], train+test."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cnn_jax.data.dataset import Collection, Dataset, Record, Source
from cnn_jax.errors import UserError, did_you_mean

_BOUND = r"(?:(-?\d[\d_]*(?:\.\d+)?)(%?))?"
_PART = re.compile(rf"([\w.-]+)(?:\[{_BOUND}:{_BOUND}\])?")


@dataclass(frozen=True)
class Part:
    """A split or a slice of it, from `start` to before `stop`, in images or in percent."""

    split: str
    start: float | None = None
    stop: float | None = None
    percent: bool = False

    def bounds(self, length: int) -> tuple[int, int]:
        """The first image and the one after the last, of `length`; percentages go to the nearest image, as in TFDS.

        Raises:
          UserError: a bound lies outside of the split.
        """
        start = 0 if self.start is None else self._images(self.start, length)
        stop = length if self.stop is None else self._images(self.stop, length)
        return start, max(start, stop)

    def _images(self, bound: float, length: int) -> int:
        count = round(bound * length / 100) if self.percent else int(bound)
        if abs(count) > length:
            asked = f"{bound:g}%" if self.percent else f"{count}"
            raise UserError(f"{asked} is outside of split {self.split!r}, which has {length} images")
        return count + length if count < 0 else count


def parse(spec: str, names: Iterable[str], name: str) -> list[Part]:
    """The parts of a split of data set `name`, which has the splits `names`; "all" is all of them.

    Raises:
      UserError: it is not written as a split, or there is none of that name.
    """
    names, parts = list(names), []
    for written in re.split(r"\s*\+\s*", spec):
        match = _PART.fullmatch(written)
        start, start_unit, stop, stop_unit = match.groups()[1:] if match else (None,) * 4
        percent, sliced = bool(start_unit or stop_unit), written.endswith("]")
        if match is None or (sliced and not (start or stop)) or (not percent and "." in f"{start}{stop}"):
            raise UserError(
                f"{written!r} is no split; splits are like train, train[:90%], train[-500:], test[10:20] or train+test"
            )
        if match[1] == "all" and not sliced:
            parts += map(Part, names)
        elif match[1] not in names:
            raise UserError(did_you_mean(f"split of {name}", match[1], names))
        else:
            bounds = (None if bound is None else float(bound) for bound in (start, stop))
            parts.append(Part(match[1], *bounds, percent=percent))
    return parts


@dataclass(frozen=True)
class Joined:
    """Several sources, one after the other, as one."""

    parts: tuple[Source, ...]

    @property
    def remote(self) -> bool:
        return any(part.remote for part in self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def read(self, indices: Sequence[int]) -> Sequence[Record]:
        found: dict[int, Record] = {}
        start = 0
        for part in self.parts:
            mine = [i for i in indices if start <= i < start + len(part)]
            found |= dict(zip(mine, part.read([i - start for i in mine]), strict=True)) if mine else {}
            start += len(part)
        return [found[i] for i in indices]

    def place(self, index: int) -> str:
        for part in self.parts:
            if index < len(part):
                break
            index -= len(part)
        return part.place(index)


def take(collection: Collection, spec: str) -> Dataset:
    """The split of a data set that `spec` names. Only the splits that it names are opened.

    Raises:
      UserError: as `parse`, or there is no image in it.
    """
    parts = parse(spec, collection.splits, collection.name)
    sources = {split: collection.splits[split]() for split in dict.fromkeys(part.split for part in parts)}
    starts = dict(zip(sources, np.cumsum([0, *map(len, sources.values())]), strict=False))
    indices = np.concatenate([starts[part.split] + np.arange(*part.bounds(len(sources[part.split]))) for part in parts])
    if not len(indices):
        sizes = " and ".join(f"{split} has {len(source):,} images" for split, source in sources.items())
        raise UserError(f"split {spec!r} of {collection.name} is empty: {sizes}")
    source = Joined(tuple(sources.values())) if len(sources) > 1 else next(iter(sources.values()))
    whole = np.array_equal(indices, np.arange(len(source)))
    rows = None if whole else indices
    described = collection.classes, collection.shape, source, rows, collection.labelled, collection.label_shape
    return Dataset(collection.name, spec, *described)
