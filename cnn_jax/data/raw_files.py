"""Data sets as their authors publish them: idx files, CIFAR's archives, ImageNet's tars; read without TensorFlow.

Each function (builder, folder) gives, by split, the examples that TFDS's own builder makes of the
files in `folder`, under its keys; images are encoded here, since TFDS takes TensorFlow for that.
A file that is missing, cut short or damaged is a UserError, at once or, of ImageNet's tars, when
its examples are taken.
"""

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnn_jax.data.decode import open_image
from cnn_jax.errors import UserError, first_line

Examples = Iterable[tuple[int | str, dict[str, Any]]]
DAMAGED = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


def read_idx(path: Path | zipfile.Path) -> np.ndarray:
    """An array of an idx file of unsigned bytes (Y. LeCun's format), plain or gzipped.

    Raises:
      UserError: no such file, not as long as it says, or another format.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except DAMAGED as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from None
    if raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise UserError(f"{path} is no idx file: it starts with {raw[:4].hex() or 'nothing'}, not 0000080..")
    shape = np.frombuffer(raw, ">u4", raw[3], 4).tolist()
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if len(values) != np.prod(shape):
        raise UserError(f"{path} has {len(values)} bytes of data, not the {'x'.join(map(str, shape))} that it tells of")
    return values.reshape(shape)


def idx_examples(builder, folder: Path) -> dict[str, Examples]:
    """MNIST and what has its form: four files like train-images-idx3-ubyte, gzipped or not; EMNIST's zip of such."""
    config = builder.builder_config_name
    files = zipfile.Path(folder / "gzip.zip", "gzip/") if (folder / "gzip.zip").exists() else folder
    prefix, test = (f"emnist-{config}-", "test") if config else ("", "t10k")
    return {
        "train": _idx_split(builder, files, f"{prefix}train"),
        "test": _idx_split(builder, files, f"{prefix}{test}"),
    }


def _idx_split(builder, folder: Path | zipfile.Path, part: str) -> Examples:
    images_path, labels_path = (
        _find(folder, f"{name}.gz", name, name.replace("-idx", ".idx"))
        for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    )
    images, labels = read_idx(images_path), read_idx(labels_path)
    height, width, _ = builder.info.features["image"].shape
    if images.shape[1:] != (height, width):
        raise UserError(f"{images_path} holds {images.shape}, not images of {height}x{width}")
    if labels.shape != images.shape[:1]:
        raise UserError(f"{labels_path} has {len(labels)} labels for the {len(images)} images of {images_path.name}")
    _check_labels(labels_path, labels, builder.info.features["label"].num_classes)
    return ((i, {"image": _png(images[i]), "label": int(labels[i])}) for i in range(len(images)))


def cifar_examples(builder, folder: Path) -> dict[str, Examples]:
    """CIFAR-10 and -100 in their binary version: the archive, or the folder that it unpacks to."""
    about = builder._cifar_info  # what the files are called, from TFDS
    files = _cifar_files(folder, about, [*about.train_files, *about.test_files, *about.label_files])
    for key, file in zip(about.label_keys, about.label_files, strict=True):
        feature, names = builder.info.features[key], [line for line in files[file].decode().split("\n") if line]
        if len(names) != feature.num_classes:
            raise UserError(f"{file} in {folder} has {len(names)} names, not {feature.num_classes}")
        feature.names = names
    return {
        "train": _cifar_split(builder, folder, "train", {name: files[name] for name in about.train_files}),
        "test": _cifar_split(builder, folder, "test", {name: files[name] for name in about.test_files}),
    }


def _cifar_files(folder: Path, about, wanted: list[str]) -> dict[str, bytes]:
    for unpacked in (folder / about.prefix, folder):
        if (unpacked / wanted[0]).exists():
            return {name: _find(unpacked, name).read_bytes() for name in wanted}
    path = _find(folder, Path(about.url).name)
    try:
        with tarfile.open(path) as tar:
            inside = ((member.name.rpartition("/")[2], tar.extractfile(member)) for member in tar)
            files = {name: file.read() for name, file in inside if file and name in wanted}
    except DAMAGED as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from None
    missing = [name for name in wanted if name not in files]
    if missing:
        raise UserError(f"{path} has no {missing[0]}")
    return files


def _cifar_split(builder, folder: Path, split: str, files: dict[str, bytes]) -> Examples:
    keys = builder._cifar_info.label_keys
    height, width, channels = builder.info.features["image"].shape
    row = len(keys) + height * width * channels
    for name, raw in files.items():
        if not raw or len(raw) % row:
            raise UserError(f"{name} in {folder} has {len(raw)} bytes, no multiple of {row}; it is cut short")
    rows = np.frombuffer(b"".join(files.values()), np.uint8).reshape(-1, row)
    for column, key in enumerate(keys):
        _check_labels(folder / next(iter(files)), rows[:, column], builder.info.features[key].num_classes)
    images = rows[:, len(keys) :].reshape(-1, channels, height, width).transpose(0, 2, 3, 1)

    def example(i: int) -> dict[str, Any]:
        labels = dict(zip(keys, rows[i].tolist(), strict=False))
        return {"id": f"{split}_{i:05d}", "image": _png(images[i]), **labels}

    return ((i, example(i)) for i in range(len(rows)))


def imagenet_examples(builder, folder: Path) -> dict[str, Examples]:
    """ImageNet 2012: those of its three tars that are there, train, validation and (without labels) test.

    As in TFDS, the 22 images in CMYK and the PNG among the JPEGs become RGB JPEGs; here by Pillow.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as tfds_builder
    from tensorflow_datasets.datasets.imagenet2012 import imagenet_common

    odd = {*tfds_builder.CMYK_IMAGES, *tfds_builder.PNG_IMAGES}
    builder._fix_image = lambda name, image: _rgb_jpeg(image) if name in odd else image
    labels = tfds.core.tfds_path(imagenet_common._VALIDATION_LABELS_FNAME).read_text().split()
    by_name = {f"ILSVRC2012_val_{number:08}.JPEG": label for number, label in enumerate(labels, 1)}
    options = {
        "train": ("ILSVRC2012_img_train.tar", {}),
        "validation": ("ILSVRC2012_img_val.tar", {"validation_labels": by_name}),
        "test": ("ILSVRC2012_img_test.tar", {"labels_exist": False}),
    }
    found = {split: (folder / name, how) for split, (name, how) in options.items() if (folder / name).exists()}
    if not found:
        tars = ", ".join(name for name, _ in options.values())
        raise UserError(f"{folder} has none of {tars}; image-net.org/download-images gives them to who registers")
    for path, _ in found.values():
        _check_end(path)
    return {
        split: _told(path, builder._generate_examples(_members(path), **how)) for split, (path, how) in found.items()
    }


def _check_end(path: Path) -> None:
    """A tar that is cut between two files reads as a whole one but for the zeros at its end."""
    try:
        with path.open("rb") as file:
            file.seek(-1024, io.SEEK_END)
            whole = not any(file.read())
    except OSError:
        whole = False
    if not whole:
        raise UserError(f"{path} is cut short: it has not the end of a tar")


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    import tensorflow_datasets as tfds

    with path.open("rb") as file:  # a file, since TFDS opens a path with TensorFlow
        yield from tfds.download.iter_archive(file, tfds.download.ExtractMethod.TAR_STREAM)


def _told(path: Path, examples: Examples) -> Examples:
    try:
        yield from examples
    except DAMAGED as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from None
    except KeyError as error:
        raise UserError(f"{path} holds {error}, not ILSVRC2012_val_00000001.JPEG and so on") from None


def _rgb_jpeg(image: Any) -> io.BytesIO:
    encoded = io.BytesIO()
    with open_image(image.read()) as opened:
        opened.convert("RGB").save(encoded, "JPEG", quality=100)
    encoded.seek(0)
    return encoded


def _png(pixels: np.ndarray) -> io.BytesIO:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    encoded.seek(0)
    return encoded


def _find(folder: Any, *names: str) -> Any:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder} has no {' or '.join(names[:2])}")


def _check_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    if labels.max(initial=0) >= classes:
        raise UserError(f"{path} has labels up to {labels.max()}, not 0 to {classes - 1}")


READERS = {
    **dict.fromkeys(("mnist", "fashion_mnist", "kmnist", "emnist"), idx_examples),
    **dict.fromkeys(("cifar10", "cifar100"), cifar_examples),
    "imagenet2012": imagenet_examples,
}
