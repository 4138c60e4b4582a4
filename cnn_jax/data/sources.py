"""Data sets by name: any TFDS image classification set in ArrayRecord files, without TensorFlow."""

import contextlib
import io
import logging
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cnn_jax.data import mnist_5k
from cnn_jax.errors import UserError, did_you_mean, first_line

READ_CHUNK = 1_000  # records a read; a progress step


@dataclass(frozen=True)
class Dataset:
    """One split in memory: `images` (N, H, W, C) uint8, `labels` (N,) int32 in [0, len(classes))."""

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """What tells this data from other data of the same name: its size and a checksum."""
        checksum = 0
        for array in (self.images, self.labels):
            checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
        return f"{len(self)} images, crc32 {checksum:08x}"


def open_dataset(name: str, split: str, data_dir: str | Path | None = None, *, download: bool = False) -> Dataset:
    """Reads one split of a TFDS data set, `name` as TFDS takes it ("fashion_mnist:3.0.1").

    `data_dir` is where prepared data sets lie, by default TFDS's own (TFDS_DATA_DIR or
    ~/tensorflow_datasets). `mnist_5k` prepares itself there on first use; any other set is
    fetched and prepared only with `download`. Images of one fixed size are read once and kept.
    TensorFlow is not imported. Without tensorflow-datasets installed `mnist_5k` comes straight
    from the package, the same images in the same order.

    Raises:
      UserError: unknown name or split, nothing prepared there, files that cannot be read, or
        a data set that is not images of one size with one label each.
    """
    try:
        import tensorflow_datasets as tfds  # takes a second: not for those who bring arrays
    except ImportError:
        if name != "mnist_5k":
            raise UserError(f"data set {name!r} needs tensorflow-datasets: pip install tensorflow-datasets") from None
        return _from_package(split)

    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS warns of every folder that it meets
    try:
        builder = _prepared_builder(tfds, name, data_dir, download)
    except NotWritable:
        if name != "mnist_5k" or data_dir is not None:
            raise
        return _from_package(split)  # no place for TFDS's files, but the digits are here anyway
    check_split(name, split, builder.info.splits)
    image_key, label_key = _keys(tfds, builder)
    try:
        source = builder.as_data_source(split)
        records = []
        chunks = range(0, len(source), READ_CHUNK)
        for start in tqdm(chunks, f"reading {name} {split}", disable=len(chunks) < 20 or not sys.stderr.isatty()):
            records += source.__getitems__(range(start, min(start + READ_CHUNK, len(source))))
        images = np.stack([record[image_key] for record in records])
        labels = np.array([record[label_key] for record in records], np.int32)
    except (OSError, RuntimeError, ValueError, IndexError, KeyError, NotImplementedError) as error:
        raise UserError(f"cannot read {name} {split} in {builder.data_dir}: {first_line(error)}") from error
    classes = tuple(builder.info.features[label_key].names)
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"{name} {split} has labels from {labels.min()} to {labels.max()}, not 0 to {len(classes) - 1}; "
            f"is it a split without labels?"
        )
    return Dataset(name, split, images, labels, classes)


class NotWritable(UserError):
    """The folder for prepared data sets cannot be made or written."""


def _from_package(split: str) -> Dataset:
    """mnist_5k without TFDS."""
    check_split("mnist_5k", split, mnist_5k.SPLITS)
    return Dataset("mnist_5k", split, *mnist_5k.read_split(split), mnist_5k.CLASSES)


def check_split(name: str, split: str, splits) -> None:
    """Raises a UserError unless `split` is one of `splits`."""
    if split not in splits:
        raise UserError(did_you_mean(f"split of {name}", split, splits))


def _prepared_builder(tfds, name: str, data_dir, download: bool):
    """The TFDS builder of a set whose ArrayRecord files are on disk."""
    if name.split(":", maxsplit=1)[0] == "mnist_5k":
        from cnn_jax.data import mnist_5k_builder  # noqa: F401  registers the builder
    elif data_dir is not None and not Path(data_dir).is_dir() and not download:
        raise UserError(f"--data-dir {data_dir} is not a directory; name the one that holds {name}/")
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError:
        base, _, version = name.partition(":")
        there = sorted(path.name for path in (Path(data_dir) / base).glob("*.*.*")) if data_dir and version else []
        if there:
            raise UserError(did_you_mean(f"version of {base}", version, there)) from None
        known = {"mnist_5k", *tfds.list_builders(with_community_datasets=False)}
        if version and base in known:
            raise UserError(f"{base} has no version {version!r}; a version is like 1.0.0") from None
        raise UserError(did_you_mean("data set", name, known)) from None
    except Exception as error:  # a bad version or config, a damaged dataset_info.json, an import of its own
        raise UserError(f"cannot open data set {name!r}: {first_line(error.__cause__ or error)}") from error
    if builder.data_path.exists() and not (builder.data_path / "dataset_info.json").exists():
        raise UserError(f"{builder.data_dir} is no whole data set (no dataset_info.json); remove it and start again")
    if builder.is_prepared():
        if builder.info.file_format.value != "array_record":
            raise UserError(
                f"{builder.data_dir} holds {builder.info.file_format.value} files, which need TensorFlow to read; "
                f"convert them once: uv run --with tensorflow python -m "
                f"tensorflow_datasets.scripts.convert_format --dataset_version_dir={builder.data_dir} "
                f"--out_file_format=array_record --out_dir=DIR/{builder.name}/{builder.version}"
            )
        return builder
    if builder.name != "mnist_5k" and not download:
        raise UserError(
            f"{builder.name} is not prepared in {builder.data_dir}; --data-dir DIR names where it is, "
            f"--download fetches and prepares it"
        )
    return _prepare(tfds, builder)


def _prepare(tfds, builder):
    """Downloads where needed and writes ArrayRecord files; TFDS renames a whole directory into place."""
    print(f"preparing {builder.name} in {builder.data_dir} (once)", flush=True)
    try:
        if builder.name == "mnist_5k":  # half a second, not worth TFDS's own report
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(file_format="array_record")
        else:
            builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise UserError(
            f"TFDS needs {error.name or 'another package'} to prepare {builder.name}: run once with `uv run --with "
            f"tensorflow train.py --dataset {builder.name} --data-dir {builder._data_dir_root} --download`"
        ) from error
    except Exception as error:  # whatever a builder, a server or a disk comes up with
        fresh = tfds.builder(builder.name, data_dir=builder._data_dir_root, try_gcs=False)
        if fresh.is_prepared():  # another process was faster
            return fresh
        told = f"cannot prepare {builder.name} in {builder.data_dir}: {first_line(error)}"
        if isinstance(error, OSError) and error.errno:  # the disk's; a server's has no errno
            raise NotWritable(f"{told}; --data-dir DIR names another place") from error
        raise UserError(told) from error
    return builder


def _keys(tfds, builder) -> tuple[str, str]:
    """The names of the image and the label feature of a classification set."""
    features = dict(builder.info.features)
    image_key, label_key = (builder.info.supervised_keys or ("image", "label"))[:2]
    image, label = features.get(image_key), features.get(label_key)
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"{builder.name} is not an image classification set: it has {', '.join(features)}")
    if None in image.shape or image.np_dtype != np.uint8:
        raise UserError(
            f"{builder.name} has images of shape {image.shape} and type {np.dtype(image.np_dtype)}; "
            f"so far cnn_jax trains on 8-bit images of one fixed size"
        )
    return image_key, label_key
