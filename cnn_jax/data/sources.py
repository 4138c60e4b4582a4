"""Data sets by name, wherever they lie."""

import importlib.util
import os
from collections.abc import Sequence
from types import ModuleType

from cnn_jax import storage
from cnn_jax.data import composed, fashion_5k, mnist_5k, order, splits
from cnn_jax.data.arrays import ArraySource, of_sources, open_npz, open_synthetic
from cnn_jax.data.dataset import Collection, Dataset
from cnn_jax.data.folder import open_folder
from cnn_jax.data.karpathy import open_karpathy
from cnn_jax.data.masks import open_masks
from cnn_jax.data.prepare import NotWritable, prepare
from cnn_jax.data.tfds_sets import find_builder, open_tfds
from cnn_jax.errors import UserError

OPENERS = {  # by what stands before a colon
    "folder": open_folder,
    "karpathy": open_karpathy,
    "masks": open_masks,
    "synthetic": open_synthetic,
}


def open_dataset(
    name: str, split: str, data_dir: str | os.PathLike | None = None, *, download: bool = False
) -> Dataset:
    """One split of a data set, by random access; no image is read yet. Imports neither JAX nor TensorFlow.

    `name` is one of
      fashion_mnist, imagenet2012:5.1.0, emnist/letters   any TFDS set of images with one label each
      mnist_5k, fashion_5k                                the digits and the garments in the package
      composed_captions, composed_masks                   scenes of them, with sentences or the class of each pixel
      folder:DIR                                          image files, a folder for each class
      masks:DIR                                           image files, each with a mask
      karpathy:FILE.json                                  image files with sentences, as COCO's and Flickr's
      FILE.npz                                            arrays
      synthetic:224x224x1000                              drawn: height x width x classes

    `split` is written as TFDS has it: train, test[:10%], train[1000:2000], train+test. `data_dir`,
    also on gs://, is where TFDS sets lie, by default TFDS's own place (TFDS_DATA_DIR or
    ~/tensorflow_datasets). A TFDS set that is not there is prepared with `download`, mnist_5k always.

    Raises:
      UserError: unknown name or split, an empty split, nothing prepared there, or files that are
        missing, cut short or no images with one label each.
    """
    return splits.take(open_collection(name, data_dir, download=download), split)


def open_run(
    name: str,
    train_split: str,
    test_split: str,
    validation: float = 0.0,
    data_dir: str | os.PathLike | None = None,
    *,
    train_classes: Sequence[str] = (),
    test_classes: Sequence[str] = (),
    download: bool = False,
) -> dict[str, Dataset]:
    """What a run trains and is tested on: "train" and "test", and "validation" if a share is held out of the first.

    Of some classes alone, where they are named.

    Raises:
      UserError: as open_dataset and Dataset.of_classes; the share is none of the images.
    """
    train, test = (open_dataset(name, split, data_dir, download=download) for split in (train_split, test_split))
    train = train.of_classes(train_classes) if train_classes else train
    test = test.of_classes(test_classes) if test_classes else test
    if not validation:
        return {"train": train, "test": test}
    kept, held_out = order.held_out(len(train), validation)
    if not len(held_out):
        raise UserError(f"--validation {validation} holds out none of {len(train)} images")
    return {
        "train": train.select(kept, train_split),
        "test": test,
        "validation": train.select(held_out, "validation"),
    }


def open_collection(name: str, data_dir: str | os.PathLike | None = None, *, download: bool = False) -> Collection:
    """All splits of a data set; arguments and errors are those of open_dataset."""
    if not name.strip():
        raise UserError(
            "the data set has no name; names are like mnist_5k, cifar10, folder:DIR, FILE.npz and synthetic:32x32x10"
        )
    kind, given, rest = name.partition(":")
    if given and kind in OPENERS:
        return OPENERS[kind](rest)
    if name.endswith(".npz"):
        return open_npz(name)
    if name in composed.NAMES or name == "fashion_5k":
        return composed.open_composed(name) if name in composed.NAMES else _embedded(name, fashion_5k)
    if name.partition(":")[0] == "mnist_5k":
        return _open_mnist_5k(name, data_dir)
    if data_dir is not None and not download and not storage.is_remote(data_dir) and not os.path.isdir(data_dir):
        raise UserError(f"--data-dir {data_dir} is not a directory; name the one that holds {name}/")
    builder = prepare(name, data_dir) if download else find_builder(name, data_dir)
    if not builder.is_prepared():
        raise UserError(
            f"{name} is not prepared in {builder.data_dir}; --data-dir DIR names where it is, "
            f"`cnn-jax prepare {name}` fetches and prepares it"
        )
    return open_tfds(builder, name)


def _open_mnist_5k(name: str, data_dir: str | os.PathLike | None) -> Collection:
    """Through TFDS, as any other set, if it is installed and has a place to write; the same images without."""
    if importlib.util.find_spec("tensorflow_datasets") is not None:
        try:
            return open_tfds(prepare(name, data_dir), name)
        except NotWritable:
            if data_dir is not None:
                raise
    return _embedded(name, mnist_5k)


def _embedded(name: str, held: ModuleType) -> Collection:
    sources = {split: ArraySource(*held.read_split(split), name) for split in held.SPLITS}
    return of_sources(name, held.CLASSES, sources)
