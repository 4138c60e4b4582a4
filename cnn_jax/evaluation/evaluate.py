"""Every image exactly once, on any number of devices and processes."""

import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh
from tqdm import tqdm

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.decode import BadImage, decode
from cnn_jax.data.host import ADVICE, BadImages, cores, read_ahead
from cnn_jax.data.loaders import Batch
from cnn_jax.errors import BadData, UserError
from cnn_jax.evaluation.metrics import predictions
from cnn_jax.evaluation.protocols import Protocol
from cnn_jax.sharding import replicated, split

AHEAD = 4  # images that a thread may be ahead of the device
RUNNING = 2  # steps that are not waited for

Records = dict[str, np.ndarray]


class Viewed(NamedTuple):
    """An image as its protocol shows it: arrays (V, h, w, C) uint8."""

    index: int
    label: int
    views: list[np.ndarray]


@dataclass(frozen=True)
class Views:
    """Element i is image `indices[i]` of a data set, decoded and cut; None for a bad one that is skipped."""

    dataset: Dataset
    indices: Sequence[int]
    protocol: Protocol
    channels: int
    bad_images: BadImages

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Viewed | None:
        """Raises BadData with the image's place, unless such are skipped."""
        number = self.indices[index]
        try:
            ((image, label),) = self.dataset.read([number])
            return Viewed(number, int(label), self.protocol.views(decode(image, self.channels)))
        except BadImage as bad:
            told = f"{self.dataset.place(number)} {bad}"
            if self.bad_images == "error":
                raise BadData(f"{told}; {ADVICE}") from None
            tqdm.write(f"skipped: {told}", file=sys.stderr)
            return None


def evaluate(step: Callable[[Any], dict[str, jax.Array]], batches: Iterable[Batch]) -> Records:
    """Every image of a split on the devices: `step(batch.arrays)` gives (B,) arrays for each of `batches`.

    Returns the same arrays for the whole split and its `index`, in its order, without padding and
    without what `step` calls not `good`. Where several processes share a batch, all call this with
    the same step, and its arrays are on every device (`out_shardings`).
    """
    records = _joined(step(batch.arrays) | {"index": batch.rows, "mask": batch.mask} for batch in batches)
    return _only(records.pop("mask") & records.pop("good"), records)


def evaluate_dataset(
    predict: Callable[..., dict[str, jax.Array]],
    variables: Any,
    dataset: Dataset,
    protocol: Protocol,
    *,
    channels: int,
    batch_size: int,
    bad_images: BadImages = "error",
) -> Records:
    """Every image of a split through a protocol; `predict` is protocols.predict, bound and compiled by jit.

    Returns what metrics.predictions says of each image, with its `index` and `label`: (N,) each, in
    the order of the split, the whole of it in every process. N is len(dataset) less the bad images
    that "skip" leaves out. A step takes `batch_size` network inputs over all devices: an image
    counts as many as it has views, larger ones by their area, but each device gets one at least.

    A process sees every process_count-th image, on its own devices. It waits for the others at the
    end alone, since their batches may be of other shapes.

    Raises:
      BadData: a bad image, with its place, unless skipped.
      UserError: no image is left; grain is not installed.
    """
    if dataset.labelled != "class":
        raise UserError(f"{dataset.name} has no classes of whole images; a run of train.py tests on it by its own task")
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    if jax.process_count() > 1:
        variables = jax.device_get(variables)  # from all devices to this process's
    variables = jax.device_put(variables, replicated(mesh))

    def per_step(views: list[np.ndarray]) -> int:
        fitting = batch_size / jax.process_count() / protocol.places(views)
        return max(int(fitting) // mesh.size, 1) * mesh.size

    share = range(jax.process_index(), len(dataset), jax.process_count())
    quiet = jax.process_index() > 0 or not sys.stderr.isatty()
    threads = min(cores(), 32)
    viewed = read_ahead(Views(dataset, share, protocol, channels, bad_images), threads, ahead=AHEAD * threads + 1)
    images = tqdm(viewed, "evaluating", len(share), disable=quiet, unit=" images")

    def steps() -> Iterator[dict]:
        nothing = np.zeros(0, np.int32)
        types = jax.eval_shape(predictions, jnp.zeros((1, 1)), jnp.zeros(1, jnp.int32))
        empty = {key: np.zeros(0, column.dtype) for key, column in types.items()}
        yield {"index": nothing, "label": nothing, "good": nothing > 0} | empty
        for batch in by_shape(images, per_step):
            full = batch + batch[:1] * (per_step(batch[0].views) - len(batch))
            views = [np.stack(group) for group in zip(*(image.views for image in full), strict=True)]
            index, label = (np.array(column, np.int32) for column in list(zip(*full, strict=True))[:2])
            records = predict(variables, *jax.device_put((views, label), split(mesh)))
            yield {"index": index, "label": label, "good": np.arange(len(full)) < len(batch), **records}

    return _gathered(_joined(steps()), dataset)


def by_shape(images: Iterable[Viewed], per_step: Callable[[list[np.ndarray]], int]) -> Iterator[list[Viewed]]:
    """Batches of images whose views have the same shapes, per_step(views) of them or, in the end, fewer."""
    batches = defaultdict(list)
    for image in images:
        shapes = tuple(views.shape for views in image.views)
        batches[shapes].append(image)
        if len(batches[shapes]) == per_step(image.views):
            yield batches.pop(shapes)
    yield from batches.values()


def arrived(steps: Iterable[Any]) -> Iterator[Any]:
    """What steps give, in order and on the host; one is waited for when RUNNING more have begun."""
    running = deque()
    for step in steps:
        running.append(step)
        if len(running) > RUNNING:
            yield jax.device_get(running.popleft())
    yield from map(jax.device_get, running)


def _joined(steps: Iterable[dict]) -> Records:
    """The arrays of all steps, one behind the other."""
    done = list(arrived(steps))
    return {key: np.concatenate([step[key] for step in done]) for key in done[0]}


def _only(kept: np.ndarray, records: Records) -> Records:
    return {key: values[kept] for key, values in records.items()}


def _gathered(records: Records, dataset: Dataset) -> Records:
    """The `good` records of all processes, in the order of the split."""
    records = _only(records["good"], records)
    if jax.process_count() > 1:
        most = -(-len(dataset) // jax.process_count())
        records = {key: np.pad(values, (0, most - len(values))) for key, values in records.items()}
        records = process_allgather(records, tiled=True)
    records = _only(records.pop("good"), records)
    if len(records["index"]) == 0:
        raise UserError(f"no image of {dataset.name} {dataset.split} can be evaluated")
    return _only(np.argsort(records["index"]), records)
