"""What the host makes ahead of the step that takes it. Uses no JAX: a worker has no device."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from cnn_jax.data.dataset import Dataset, Label, Record
from cnn_jax.data.decode import BadImage
from cnn_jax.data.views import View
from cnn_jax.errors import BadData, LostData, UserError, first_line

BadImages = Literal["error", "skip"]
T_co = TypeVar("T_co", covariant=True)

CHUNK = 64  # images that a thread makes one after another
BATCHES_AHEAD = 2  # made or begun while the loop is at another
LOOK_AHEAD = 100  # so many images, from a bad one on, are tried in its place
ADVICE = "--bad-images skip goes on without such images"


@dataclass(frozen=True)
class HostChunks:
    """Batches in chunks of at most CHUNK images: batch `i` holds the images `rows[i]` of a data set, through `view`.

    `rows` (steps, B) int32. `shape` (H, W, C) is that of each image. `draw` is (seed, epoch) where a
    view draws, else None. A bad image ends all ("error"), or the next good one of the data set stands
    in its place ("skip"): a rule that knows no batch and no chunk, so that every engine and every
    number of processes sees the same.
    """

    dataset: Dataset
    view: View
    rows: np.ndarray
    shape: tuple[int, ...]
    draw: tuple[int, int] | None = None
    bad_images: BadImages = "error"

    @property
    def per_batch(self) -> int:
        """Chunks of a batch."""
        return -(-self.rows.shape[1] // CHUNK)

    def __len__(self) -> int:
        return len(self.rows) * self.per_batch

    def place(self, index: int) -> tuple[int, slice]:
        """Of chunk `index`: its batch, and which images of it."""
        batch, part = divmod(index, self.per_batch)
        first, end = (number * self.rows.shape[1] // self.per_batch for number in (part, part + 1))
        return batch, slice(first, end)

    def __getitem__(self, index: int) -> dict:
        """`image` (n, H, W, C) uint8, `label` (n, *label_shape), `good` (n,) bool, and `bad`: {index: why}.

        Raises:
          BadData: a bad image or a label out of range, with its place; an image of another size.
        """
        _, part = self.place(index)
        return self.made(index, np.empty((part.stop - part.start, *self.shape), np.uint8))

    def made(self, index: int, images: np.ndarray) -> dict:
        """Chunk `index` with its images written into `images`."""
        batch, part = self.place(index)
        row = self.rows[batch, part].tolist()
        bad: dict[int, str] = {}
        labels = np.empty((len(row), *self.dataset.label_shape), self.dataset.label_dtype)
        # From afar all in one request; of what is near one by one costs no time and less memory.
        records = self.dataset.read_each(row) if self.dataset.remote else map(self._record, row)
        for slot, (number, record) in enumerate(zip(row, records, strict=True)):
            pixels, labels[slot] = self._image(number, record, bad)
            if pixels.shape != self.shape:
                raise BadData(
                    f"{self.dataset.place(number)} has {pixels.shape[1]} x {pixels.shape[0]} pixels, not "
                    f"{self.shape[1]} x {self.shape[0]} as others of {self.dataset.name}"
                )
            images[slot] = pixels
        return {"image": images, "label": labels, "good": np.array([i not in bad for i in row]), "bad": bad}

    def _record(self, index: int) -> Record | BadImage:
        return self.dataset.read_each([index])[0]

    def _image(self, index: int, record: Record | BadImage, bad: dict[int, str]) -> tuple[np.ndarray, Label]:
        key = None if self.draw is None else (*self.draw, index)
        for candidate in candidates(index, len(self.dataset)):
            found = record if candidate == index else self._record(candidate)
            try:
                if isinstance(found, BadImage):
                    raise found
                image, label = found
                return self.view(image, self.dataset.shape[2], key), label
            except BadImage as error:
                told = f"{self.dataset.place(candidate)} {error}"
                if self.bad_images == "error":
                    raise BadData(f"{told}; {ADVICE}") from None
                bad[candidate] = told
        raise BadData(f"{told}, and so it goes on for {LOOK_AHEAD} images")


class InPlace:
    """Chunks whose threads write into the array of the whole batch, which the first of them makes."""

    def __init__(self, chunks: HostChunks):
        self.chunks = chunks
        self.images: dict[int, np.ndarray] = {}  # of batches that are not whole yet
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> dict:
        batch, part = self.chunks.place(index)
        with self._lock:
            if batch not in self.images:
                self.images[batch] = np.empty((self.chunks.rows.shape[1], *self.chunks.shape), np.uint8)
            images = self.images[batch][part]
        return self.chunks.made(index, images)


class HostBatches(Iterator[dict]):
    """The batches of `chunks` in order, made ahead from now on, by threads or by worker processes.

    A batch is as a chunk, of all its images. BATCHES_AHEAD batches and a chunk a thread are under way at most.
    """

    def __init__(self, chunks: HostChunks, threads: int, processes: int = 0):
        """Raises what `read_ahead` raises."""
        self._chunks = chunks
        self._in_place = None if processes else InPlace(chunks)
        ahead = BATCHES_AHEAD * chunks.per_batch + (processes or threads)
        self._made: Ahead[dict] = read_ahead(self._in_place or chunks, threads, processes, ahead)
        self._batch = 0

    def __next__(self) -> dict:
        if self._batch == len(self._chunks.rows):
            self.close()
            raise StopIteration
        parts = [next(self._made) for _ in range(self._chunks.per_batch)]
        whole = {name: _joined([part[name] for part in parts]) for name in ("label", "good")}
        if self._in_place:
            whole["image"] = self._in_place.images.pop(self._batch)
        else:
            whole["image"] = _joined([part["image"] for part in parts])
        self._batch += 1
        return whole | {"bad": {index: told for part in parts for index, told in part["bad"].items()}}

    def close(self) -> None:
        """Ends the threads, after their chunk, or the workers."""
        self._made.close()


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def candidates(index: int, size: int) -> list[int]:
    """An image and those that may stand in for it if it is bad: the next ones of the data set, around its end."""
    return [(index + ahead) % size for ahead in range(LOOK_AHEAD)]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker(number: int, count: int) -> None:
    """In a worker process: Ctrl-C is its parent's affair, and it ends with its parent, which it would outlive."""
    del number, count
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


class Source(Protocol[T_co]):
    """What is made ahead: elements by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> T_co | None: ...


class Ahead(Iterator[T_co]):
    """What is made ahead, in order, until `close` ends who makes it."""

    def __init__(self, made: Any, processes: int):
        self._made, self._processes = made, processes
        made.start_prefetch()

    def __next__(self) -> T_co:
        try:
            return next(self._made)
        except RuntimeError as error:
            if not self._processes or "terminated unexpectedly" not in str(error):  # grain's words
                raise
            # Killed, for want of memory most often.
            told = f"a worker process ended ({first_line(error)}); fewer --workers need less memory"
            raise LostData(told) from None

    def close(self) -> None:
        """Ends the threads, after what they are at, or the workers."""
        self._made.close()


def read_ahead(source: Source[T_co], threads: int, processes: int = 0, ahead: int = 1) -> Ahead[T_co]:
    """The elements of `source` in order, made ahead by grain: by threads of this process, or by worker processes.

    Without those that are None. They begin at once and are `ahead` elements before who takes them.
    Worker processes are for hosts with so many cores that Python's lock holds threads back.

    Raises:
      UserError: grain is not installed.
      LostData: a worker process ended. And what `source` raises.
    """
    try:
        import cv2
        import grain
        import simplejpeg  # noqa: F401  its absence is told here, not from a thread
    except ImportError as error:
        package = {"cv2": "opencv-python-headless"}.get(error.name or "", error.name)
        raise UserError(f"reading images as they are needed takes {package}: pip install {package}") from None
    cv2.setNumThreads(0)  # the threads are ours
    elements: Any = grain.MapDataset.source(source)
    if not processes:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        return Ahead(iter(elements.to_iter_dataset(options)), processes)
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain asks for them in its workers
    one_each = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    workers = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=-(-ahead // processes))
    return Ahead(iter(elements.to_iter_dataset(one_each).mp_prefetch(workers, _start_worker)), processes)
