"""What the host makes ahead of the step that takes it. Uses no JAX: a worker has no device."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.decode import BadImage
from cnn_jax.data.views import View
from cnn_jax.errors import BadData, UserError, first_line

BadImages = Literal["error", "skip"]
T_co = TypeVar("T_co", covariant=True)

LOOK_AHEAD = 100  # so many images, from a bad one on, are tried in its place
ADVICE = "--bad-images skip goes on without such images"


@dataclass(frozen=True)
class HostBatches:
    """Batch `i` holds the images `rows[i]` of a data set, each through `view`.

    `rows` (steps, B) int32. `draw` is (seed, epoch) where a view draws, else None. A bad image ends
    all ("error"), or the next good one of the data set stands in its place ("skip"): a rule that
    knows no batch, so that every engine and every number of processes sees the same.
    """

    dataset: Dataset
    view: View
    rows: np.ndarray
    draw: tuple[int, int] | None = None
    bad_images: BadImages = "error"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        """`image` (B, H, W, C) uint8, `label` (B,) int32, `good` (B,) bool, and `bad`: {index: why}.

        Raises:
          BadData: a bad image or a label out of range, with its place; images of several sizes.
        """
        row = self.rows[index].tolist()
        bad: dict[int, str] = {}
        images = None
        labels = np.empty(len(row), np.int32)
        for slot, number in enumerate(row):
            pixels, labels[slot] = self._image(number, bad)
            if images is None:
                images = np.empty((len(row), *pixels.shape), np.uint8)
            if pixels.shape != images.shape[1:]:
                raise BadData(
                    f"{self.dataset.place(number)} has {pixels.shape[1]} x {pixels.shape[0]} pixels, not "
                    f"{images.shape[2]} x {images.shape[1]} as others of {self.dataset.name}"
                )
            images[slot] = pixels
        return {"image": images, "label": labels, "good": np.array([i not in bad for i in row]), "bad": bad}

    def _image(self, index: int, bad: dict[int, str]) -> tuple[np.ndarray, int]:
        key = None if self.draw is None else (*self.draw, index)
        for candidate in candidates(index, len(self.dataset)):
            try:
                ((image, label),) = self.dataset.read([candidate])  # one by one costs no time and less memory
                return self.view(image, self.dataset.shape[2], key), label
            except BadImage as error:
                told = f"{self.dataset.place(candidate)} {error}"
                if self.bad_images == "error":
                    raise BadData(f"{told}; {ADVICE}") from None
                bad[candidate] = told
        raise BadData(f"{told}, and so it goes on for {LOOK_AHEAD} images")


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


def read_ahead(source: Source[T_co], threads: int, processes: int = 0, ahead: int = 1) -> Iterator[T_co]:
    """The elements of `source` in order, made ahead by grain: by threads of this process, or by worker processes.

    Without those that are None. Of threads each is `ahead` elements before who takes them. A batch is
    one element, made by one thread, so the place in an epoch is a number of batches and nothing about
    workers. Worker processes are for hosts with so many cores that Python's lock holds threads back.

    Raises:
      UserError: grain is not installed.
      BadData: a worker process ended; and what `source` raises.
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
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead * threads + 1)
        return iter(elements.to_iter_dataset(options))
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain asks for them in its workers
    one_each = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    workers = grain.MultiprocessingOptions(num_workers=processes)
    return _of_workers(elements.to_iter_dataset(one_each).mp_prefetch(workers, _start_worker))


def _of_workers(elements: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from elements
    except RuntimeError as error:  # killed, for want of memory most often
        raise BadData(f"a worker process ended ({first_line(error)}); fewer --workers need less memory") from None
