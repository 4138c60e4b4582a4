"""TFDS data sets in ArrayRecord files, on disk or on gs://, read without TensorFlow."""

import bisect
import errno
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np

from cnn_jax import storage
from cnn_jax.data.dataset import Collection
from cnn_jax.data.decode import BadImage
from cnn_jax.data.shards import Shards, allowed_files
from cnn_jax.errors import LostData, Unavailable, UserError, did_you_mean, first_line


@dataclass(frozen=True)
class TfdsSource:
    """One split, ArrayRecord files of tf.train.Examples: `files` has the path of each and its number of records."""

    files: tuple[tuple[str, int], ...]
    image_key: str
    label_key: str

    @property
    def remote(self) -> bool:
        return bool(self.files) and storage.is_remote(self.files[0][0])

    def __len__(self) -> int:
        return self._ends[-1] if self.files else 0

    def read(self, indices: Sequence[int]) -> list[tuple[bytes, int]]:
        parse, damage = self._parser
        waits = () if self.remote else storage.WAITS  # Google's client has asked again for a quarter of an hour
        try:
            read = partial(self._shards.read, indices)
            records = storage.patiently(read, f"{self.place(indices[0])} cannot be read", waits)
            features = [parse(record).features.feature for record in records]
            return [(f[self.image_key].bytes_list.value[0], f[self.label_key].int64_list.value[0]) for f in features]
        except Unavailable as lost:
            raise LostData(str(lost)) from None
        except (RuntimeError, damage, IndexError) as error:  # IndexError: a record without image or label
            if os.strerror(errno.EMFILE) in str(error):
                limit = f"this process may open {allowed_files()} files; `ulimit -n 4096` before it lets it open more"
                raise UserError(f"{self.place(indices[0])} cannot be opened: {limit}") from None
            raise BadImage(f"cannot be read ({first_line(error)})") from None

    def place(self, index: int) -> str:
        file = bisect.bisect_right(self._ends, index)
        path, length = self.files[file]
        return f"record {index - (self._ends[file] - length)} of {path}"

    def __reduce__(self):
        return TfdsSource, (self.files, self.image_key, self.label_key)  # without what is kept below

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(length for _, length in self.files))

    @cached_property
    def _parser(self) -> tuple[Callable[[bytes], Any], type[Exception]]:
        """Parses a tf.train.Example, and what that raises."""
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        return tf_example_pb2.Example.FromString, DecodeError  # ty: ignore[missing-attribute]  made on import

    @cached_property
    def _shards(self) -> Shards:
        return Shards(self.files, self.remote)


def open_tfds(builder, name: str) -> Collection:
    """The splits of a prepared TFDS set that the user calls `name`.

    Opening a split looks at each of its files that lies on this machine.

    Raises:
      UserError: no images of 8 bits with one class label each, or tfrecord files; on opening a
        split: files that are missing or cut short.
    """
    info = builder.info
    about = info.as_proto  # info.available_file_formats() forgets the other formats of a set whose builder is known
    if "array_record" not in (about.file_format, *about.alternative_file_formats):
        raise UserError(
            f"{builder.data_dir} holds {about.file_format} files, which need TensorFlow to read; convert them once: "
            f"uv run --with tensorflow --with apache-beam python -m tensorflow_datasets.scripts.convert_format "
            f"--dataset_version_dir={builder.data_dir} --out_file_format=array_record"
        )
    info.set_file_format("array_record", override=True, override_if_initialized=True)
    image_key, label_key = image_and_label(builder)
    height, width, channels = info.features[image_key].shape
    openers = {split: partial(_open_split, info.splits[split], image_key, label_key) for split in info.splits}
    classes = tuple(info.features[label_key].names)
    return Collection(name, classes, (height, width, 1 if channels == 1 else 3), openers)


def image_and_label(builder) -> tuple[str, str]:
    """The names of the features that are a set's image, of 8 bits, and its class label.

    Raises:
      UserError: it has none such.
    """
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    image_key, label_key = map(str, (builder.info.supervised_keys or ("image", "label"))[:2])  # some are nested
    image, label = features.get(image_key), features.get(label_key)
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"{builder.name} is not an image classification set: it has {', '.join(features)}")
    if image.np_dtype != np.uint8:
        raise UserError(f"{builder.name} has images of type {np.dtype(image.np_dtype)}, not uint8")
    return image_key, label_key


def _open_split(split, image_key: str, label_key: str) -> TfdsSource:
    from array_record.python.array_record_data_source import array_record_module

    files = tuple((instruction.filename, instruction.take) for instruction in split.file_instructions)
    for path, length in files:
        if storage.is_remote(path):
            continue  # a request for each; a file that is missing is told when it is read
        if not os.path.exists(path):
            raise UserError(f"{path} is missing; copy it there, or prepare the data set again")
        found = array_record_module.ArrayRecordReader(path).num_records()  # told by its end: 0 if it is cut short
        if found != length:
            raise UserError(
                f"{path} is cut short or damaged: it has {found} records, not {length}; prepare the data set again"
            )
    return TfdsSource(files, image_key, label_key)


def find_builder(name: str, data_dir: str | os.PathLike | None = None) -> Any:
    """TFDS's builder of a set, `name` as TFDS takes it ("fashion_mnist:3.0.1", "emnist/letters").

    `data_dir` may be on gs://; TFDS's default (TFDS_DATA_DIR or ~/tensorflow_datasets) if None.

    Raises:
      UserError: TFDS is not installed, knows no such set and finds none there, or a folder of the
        set is not a whole one.
    """
    try:
        import tensorflow_datasets as tfds  # takes a second: not for those who bring arrays
    except ImportError:
        raise UserError(f"data set {name!r} needs tensorflow-datasets: pip install tensorflow-datasets") from None

    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS warns of every folder that it meets
    base, _, version = name.partition(":")
    if base == "mnist_5k":
        from cnn_jax.data import mnist_5k_builder  # noqa: F401  registers the builder
    root = os.fspath(tfds.core.constants.DATA_DIR if data_dir is None else data_dir)
    if storage.is_remote(root):
        _check_remote(root)
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError:
        folder = tfds.core.Path(root).expanduser() / base
        there = sorted(path.name for path in folder.glob("*.*.*")) if version and folder.exists() else []
        if there:
            raise UserError(did_you_mean(f"version of {base}", version, there)) from None
        known = {"mnist_5k", *tfds.list_builders(with_community_datasets=False)}
        if version and base in known:
            raise UserError(f"{base} has no version {version!r}; a version is like 1.0.0") from None
        raise UserError(did_you_mean("data set", name, known)) from None
    except Exception as error:  # a bad version or config, a damaged dataset_info.json, an import of its own
        cause = error.__cause__ or error
        told = f"cannot open data set {name!r}: {first_line(cause)}"
        raise (Unavailable if storage.passes(cause) else UserError)(told) from error
    if builder.data_path.exists() and not (builder.data_path / "dataset_info.json").exists():
        raise UserError(f"{builder.data_dir} is no whole data set (no dataset_info.json); remove it and start again")
    return builder


def _check_remote(root: str) -> None:
    folder = storage.place(root)
    try:
        there = folder.exists()
    except Exception as error:  # no right to read
        raise storage.told(f"cannot reach {root}", error) from error
    if not there:
        raise UserError(f"{root} is not there, or holds nothing")
