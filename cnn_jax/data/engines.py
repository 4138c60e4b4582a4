"""Two engines, one batch: images that live on the devices, or that the host makes as they are needed."""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from tqdm import tqdm

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.host import ADVICE, LOOK_AHEAD, BadImages, HostBatches, HostChunks, candidates, cores
from cnn_jax.data.views import View, whole
from cnn_jax.errors import BadData, UserError

ON_DEVICE = 0.25  # share of a device's memory that data sets may take
BLOCK = 32  # rows of numbers that go to the devices at once
AHEAD = 2  # steps under way at most, so that the next batch is sent while a step runs

Batch = dict[str, Any]  # a tree of arrays


class Engine(Protocol):
    """Gives the arrays of which `gather`, inside a compiled function, makes the images of a batch.

    `place` is where the set lies. `skipped` has the bad images met so far, by their number: what was
    wrong and where. `waited` is the time in seconds that a step could not start for want of a batch.
    `crops` says that images come through a view, already cropped.
    """

    place: Literal["device", "host"]
    skipped: dict[int, str]
    waited: float
    crops: bool

    def batches(self, rows: np.ndarray, epoch: int | None = None) -> Iterator[Batch]:
        """A batch on the devices, split over them, for each row of image numbers (steps, B) int32.

        `epoch` is what random views are drawn from; None for evaluation.
        """
        ...

    def begin(self, rows: np.ndarray, epoch: int | None = None) -> None:
        """Begins to make the batches that `batches` is asked for next, by the same arguments."""
        ...

    def close(self) -> None:
        """Ends what `begin` began and nobody has asked for."""
        ...

    def example(self, shape: tuple[int, ...]) -> Batch:
        """Shapes, types and places of the batch that a row of that shape gives, to compile for."""
        ...


def gather(batch: Batch) -> Batch:
    """The images of an engine's batch, inside a compiled function.

    `image` (B, H, W, C) uint8, `label` (B, *label_shape), `good` (B,) bool: False where another image stands in.
    """
    if "index" not in batch:
        return batch
    return {key: values[batch["index"]] for key, values in batch["set"].items()}


class OnDevice:
    """The whole set lies on every device as uint8; a batch is a row of numbers, and the set."""

    place: Literal["device", "host"] = "device"
    waited, crops = 0.0, False

    def __init__(
        self, dataset: Dataset, *, everywhere: Sharding, split: NamedSharding, bad_images: BadImages = "error"
    ):
        """Reads all images, with progress on a terminal.

        Raises:
          BadData: a bad image and `bad_images` is "error".
          UserError: images of several sizes.
        """
        self.skipped: dict[int, str] = {}

        def on_bad(index: int, told: str) -> None:
            if bad_images == "error":
                raise BadData(f"{told}; {ADVICE}")
            _note(self.skipped, {index: told})

        images, labels = dataset.load(on_bad)
        good = np.ones(len(dataset), bool)
        for index, told in self.skipped.items():
            good[index] = False
            stand_in = next((i for i in candidates(index, len(dataset)) if i not in self.skipped), None)
            if stand_in is None:
                raise BadData(f"{told}, and so it goes on for {LOOK_AHEAD} images")
            images[index], labels[index] = images[stand_in], labels[stand_in]
        arrays = {"image": images, "label": labels, "good": good}
        self._set = {name: _placed(everywhere, values) for name, values in arrays.items()}
        self._split, self._rows = split, NamedSharding(split.mesh, PartitionSpec(None, *split.spec))
        self._apart = jax.jit(tuple, out_shardings=split)

    def batches(self, rows: np.ndarray, epoch: int | None = None) -> Iterator[Batch]:
        del epoch  # nothing is drawn on the host
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            block = np.zeros((BLOCK, *rows.shape[1:]), np.int32)  # always as many, for one program
            block[: len(some)] = some
            for index in self._apart(_placed(self._rows, block))[: len(some)]:
                yield {"index": index, "set": self._set}

    def begin(self, rows: np.ndarray, epoch: int | None = None) -> None:
        """Nothing is to be made."""

    def close(self) -> None:
        """Nothing was begun."""

    def example(self, shape: tuple[int, ...]) -> Batch:
        return {"index": jax.ShapeDtypeStruct(shape, np.int32, sharding=self._split), "set": self._set}


class FromHost:
    """Images are read, decoded and cropped by threads or worker processes: this process's share of each batch."""

    place: Literal["device", "host"] = "host"

    def __init__(
        self,
        dataset: Dataset,
        view: View,
        size: int,
        *,
        split: Sharding,
        seed: int = 0,
        threads: int = 0,
        processes: int = 0,
        bad_images: BadImages = "error",
    ):
        """`view` gives (size, size, C), but images of one fixed size come as they are, for the device to crop.

        `seed` is the root of what views draw. `threads` 0: as many as this process has cores.
        """
        self.crops = not dataset.fixed_size
        self.dataset, self.view = dataset, view if self.crops else whole
        edges = (size, size) if self.crops else dataset.shape[:2]
        self.image_shape = (*(edge or size for edge in edges), dataset.shape[2])
        self.seed, self.bad_images = seed, bad_images
        self.threads, self.processes = threads or cores(), processes
        self.skipped: dict[int, str] = {}
        self.waited = 0.0
        self._split = split
        self._begun: tuple[np.ndarray, int | None, HostBatches] | None = None

    def begin(self, rows: np.ndarray, epoch: int | None = None) -> None:
        self.close()
        self._begun = rows, epoch, self._making(rows, epoch)

    def close(self) -> None:
        if self._begun:
            self._begun[2].close()
            self._begun = None

    def batches(self, rows: np.ndarray, epoch: int | None = None) -> Iterator[Batch]:
        start = time.perf_counter()
        if self._begun and self._begun[1] == epoch and np.array_equal(self._begun[0], rows):
            (_, _, made), self._begun = self._begun, None
        else:
            made = self._making(rows, epoch)
        with closing(made):
            for batch in made:
                self.waited += time.perf_counter() - start
                _note(self.skipped, batch.pop("bad"))
                yield {key: jax.make_array_from_process_local_data(self._split, value) for key, value in batch.items()}
                start = time.perf_counter()

    def _making(self, rows: np.ndarray, epoch: int | None) -> HostBatches:
        """This process's share of the batches, on their way from now on."""
        places = self._split.addressable_devices_indices_map(rows.shape[1:]).values()
        mine = rows[:, np.unique(np.concatenate([np.arange(rows.shape[1])[place] for place in places]))]
        draw = None if epoch is None else (self.seed, epoch)
        chunks = HostChunks(self.dataset, self.view, mine, self.image_shape, draw, self.bad_images)
        return HostBatches(chunks, self.threads, self.processes)

    def example(self, shape: tuple[int, ...]) -> Batch:
        kinds = {
            "image": (np.uint8, self.image_shape),
            "label": (self.dataset.label_dtype, self.dataset.label_shape),
            "good": (np.bool_, ()),
        }
        return {
            key: jax.ShapeDtypeStruct((*shape, *rest), dtype, sharding=self._split)
            for key, (dtype, rest) in kinds.items()
        }


def _placed(sharding: Sharding, values: np.ndarray) -> jax.Array:
    """The same array of every process on the devices; jax.device_put would compare it over all processes first."""
    return jax.make_array_from_process_local_data(sharding, values, values.shape)


def _note(skipped: dict[int, str], bad: dict[int, str]) -> None:
    """Names bad images that were not met before."""
    for index, told in bad.items():
        if index not in skipped:
            tqdm.write(f"skipped: {told}", file=sys.stderr)
    skipped |= bad


def choose_engine(asked: Literal["auto", "device", "host"], *datasets: Dataset) -> Literal["device", "host"]:
    """ "auto": "device" if the images have one size and all sets together fit ON_DEVICE of a device's memory.

    Raises:
      UserError: "device" for images of which it is not known that they have one size.
    """
    for dataset in datasets:
        if not dataset.fixed_size and asked == "device":
            raise UserError(f"--engine device needs images of one known size, which {dataset.name} does not have")
        if not dataset.fixed_size:
            return "host"
    if asked != "auto":
        return asked
    size = sum(len(dataset) * math.prod(edge or 0 for edge in dataset.shape) for dataset in datasets)
    return "device" if size <= ON_DEVICE * device_memory() else "host"


def device_memory() -> int:
    """Bytes of memory of one device; the machine's on a CPU."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
    return (device.memory_stats() or {}).get("bytes_limit", 0)  # 0, not known: sets stay on the host
