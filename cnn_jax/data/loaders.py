"""A split of a data set by batches: which images (order), and how they come to the devices (engines)."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from cnn_jax.data import order, views
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.decode import Interpolation
from cnn_jax.data.engines import Engine, FromHost, OnDevice, choose_engine
from cnn_jax.data.masks import resized
from cnn_jax.data.sources import open_run
from cnn_jax.distributed import once
from cnn_jax.errors import UserError
from cnn_jax.recipes import Recipe
from cnn_jax.recipes.uses import LABELS
from cnn_jax.sharding import per_seed, replicated, split


class Batch(NamedTuple):
    """The images of a step.

    Attributes:
      rows: their numbers in the split, (B,) int32; (seeds, B) where several seeds train side by side.
      mask: (B,) bool, False for what fills up the last batch of an evaluation.
      arrays: what a compiled function takes, and engines.gather makes images of.
    """

    rows: np.ndarray
    mask: np.ndarray
    arrays: dict[str, jax.Array]


@dataclass(frozen=True)
class Loader:
    """A data set, an engine and an order; `seeds` are the roots of the orders, more than one for seeds side by side.

    `order` gives the rows of an epoch from an image of it on, of (seed, epoch, offset); order.epoch_order if None.
    """

    dataset: Dataset
    engine: Engine
    batch_size: int
    mesh: Mesh
    seeds: tuple[int, ...] = (0,)
    order: Callable[..., np.ndarray] | None = None

    def __len__(self) -> int:
        """Images."""
        return len(self.dataset)

    @property
    def sharding(self) -> NamedSharding:
        """Where a batch lies: its images are split over the devices."""
        return per_seed(self.mesh) if len(self.seeds) > 1 else split(self.mesh)

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.dataset.classes)

    @property
    def channels(self) -> int:
        """Of an image."""
        return self.dataset.shape[2]

    def epoch(self, epoch: int, offset: int = 0, most: int | None = None) -> Iterator[Batch]:
        """The batches of an epoch, from image `offset` of its order on; the first `most` of them if that is given.

        Raises:
          BadData: an image that cannot be used, unless such are skipped.
        """
        rows = self._rows(epoch, offset)[:most]
        return self._batches(rows, np.ones((len(rows), self.batch_size), bool), epoch)

    def every_image(self) -> Iterator[Batch]:
        """Batches of every image once, in the order of the split, nothing of it drawn.

        Raises:
          BadData: as `epoch`.
        """
        return self._batches(*order.evaluation_order(len(self), self.batch_size))

    def begin(self, epoch: int | None) -> None:
        """Begins to make what `epoch(epoch)` or, for None, `every_image()` gives next, as far as it is made ahead."""
        every_image, _ = order.evaluation_order(len(self), self.batch_size)
        self.engine.begin(every_image if epoch is None else self._rows(epoch), epoch)

    def close(self) -> None:
        """Ends what was begun and is not asked for."""
        self.engine.close()

    def example(self) -> dict[str, jax.Array]:
        """Shapes, types and places of a batch's arrays, to compile for."""
        return self.engine.example((len(self.seeds), self.batch_size) if len(self.seeds) > 1 else (self.batch_size,))

    def _rows(self, epoch: int, offset: int = 0) -> np.ndarray:
        usual = partial(order.epoch_order, size=len(self), batch_size=self.batch_size)
        orders = [(self.order or usual)(seed, epoch, offset=offset) for seed in self.seeds]
        return np.stack(orders, 1) if len(orders) > 1 else orders[0]

    def _batches(self, rows: np.ndarray, mask: np.ndarray, epoch: int | None = None) -> Iterator[Batch]:
        for row, real, arrays in zip(rows, mask, self.engine.batches(rows, epoch), strict=True):
            yield Batch(row, real, arrays)


def open_loaders(
    config: Recipe,
    mesh: Mesh,
    *,
    size: int,
    crop: float = 1.0,
    interpolation: Interpolation = "bilinear",
    engine: Literal["auto", "device", "host"] = "auto",
    threads: int = 0,
    workers: int = 0,
    download: bool = False,
) -> dict[str, Loader]:
    """What a run trains and is tested on: "train" and "test", and "validation" if the recipe holds a share out.

    A set that is small enough lives on every device of `mesh`, another is decoded by the host as it is
    needed, unless `engine` says which. `size`, `crop` and `interpolation` are what the network's card says
    of the images that it is tested on; `threads` and `workers` decode.

    Raises:
      UserError: what data.open_dataset and engines.OnDevice raise; a batch larger than the training set,
        seeds side by side on a set that the host keeps.
    """
    parts = (config.train_split, config.test_split, config.validation, config.data_dir)
    classes = {"train_classes": config.train_classes, "test_classes": config.test_classes}
    sets = open_run(config.dataset, *parts, **classes, download=download)
    labelled, wanted = sets["train"].labelled, LABELS[config.task]
    if labelled != wanted:
        learns = next((task for task, labels in LABELS.items() if labels == labelled), labelled)
        raise UserError(f"{config.dataset} has labels for --task {learns}, and --task {config.task} learns a {wanted}")
    if labelled == "mask":  # images of many sizes come with masks of many sizes
        sets = {name: dataset if dataset.fixed_size else resized(dataset, size) for name, dataset in sets.items()}
    if len(sets["train"]) < config.batch_size:
        images = f"{len(sets['train'])} training images"
        raise UserError(f"--batch-size {config.batch_size} is more than the {images}")
    kind = once(lambda: choose_engine(engine, *sets.values()))
    if config.seeds > 1 and kind == "host":
        raise UserError("--seeds trains side by side on sets that live on the device; start them one by one instead")
    middle = partial(views.middle, size=size, crop=crop, interpolation=interpolation)
    drawn = views.training_view(asdict(config.augment), size) or middle

    def load(name: str, dataset: Dataset) -> Loader:
        seeds = range(config.seed, config.seed + config.seeds) if name == "train" else [config.seed]
        sharding = per_seed(mesh) if len(seeds) > 1 else split(mesh)
        made: Engine
        if kind == "device":
            made = OnDevice(dataset, everywhere=replicated(mesh), split=sharding, bad_images=config.bad_images)
        else:
            made = FromHost(
                dataset,
                drawn if name == "train" else middle,
                size,
                split=sharding,
                seed=config.seed,
                threads=threads,
                processes=workers,
                bad_images=config.bad_images,
            )
        return Loader(dataset, made, config.batch_size, mesh, tuple(seeds), by_class if name == "train" else None)

    by_class = None
    if config.task == "embed":
        per_class, labels = config.embed.images_per_class, sets["train"].labels_alone()
        by_class = partial(order.class_order, labels=labels, batch_size=config.batch_size, per_class=per_class)
        by_class(config.seed, 0)  # tells a batch that cannot be
    return {name: load(name, dataset) for name, dataset in sets.items()}
