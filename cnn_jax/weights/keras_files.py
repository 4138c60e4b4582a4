"""Keras's weight files without Keras: HDF5 of all ages, and the archives `.keras`.

Nothing in them is run: of a configuration the names of layers are read and no more. Nothing in them is believed:
links are not followed, and only arrays that lie in the file as plain as Keras writes them are read.
"""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import IO, Any

import h5py
import ml_dtypes
import numpy as np

from cnn_jax.errors import UserError

IN_ARCHIVE = "model.weights.h5"
# Keras 3 numbers the variables of a layer: by its kind, what they are.
VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
NUMBERED = re.compile(r"((?:.*/)?(?:layers|_layer_checkpoint_dependencies)/([a-z0-9_]+?)(?:_\d+)?)/vars/(\d+)")
# Kinds of layers of our networks that Keras counts through in a session where it is given no name.
COUNTED = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?")


def read_hdf5(file: IO[bytes], places: dict[str, str] | None = None) -> dict[str, np.ndarray]:
    """The variables of all layers by Keras's names, "conv1_bn/gamma", in Keras's layout.

    Of a file of weights alone or of a whole model, as any Keras since the first writes it; `places` names the
    layers where a file does not. Layers that Keras named itself are counted from 1, "conv2d_1", whatever the
    session had made before them. Layers of a model inside a model stand beside the others.

    Raises:
      UserError: there are no layers, none with names, or two with one, or what they hold is no plain array of numbers.
    """
    with h5py.File(file, "r") as h5:
        weights = _inside(h5).get("model_weights", h5)
        read = _named if _texts(weights, "layer_names") else _numbered
        found: dict[str, Any] = {}
        for key, dataset in read(weights, places or {}):
            if key in found:
                raise UserError(f"it has {key} twice, as of two models in one; save one of them")
            found[key] = dataset
            if not _is_plain(dataset):
                raise UserError(f"{key} is no plain array of numbers in this file, as Keras writes them")
        if not found:
            raise UserError("HDF5, but without layers of Keras")
        if sum(dataset.nbytes for dataset in found.values()) > h5.id.get_filesize():
            raise UserError("damaged: its arrays are larger than the file")
        arrays = {key: dataset[()] for key, dataset in found.items()}
    return _recounted({k: v.view(ml_dtypes.bfloat16) if v.dtype == "V2" else v for k, v in arrays.items()})


def read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The variables of a `.keras` archive, see read_hdf5.

    Raises:
      UserError: also if it is compressed.
    """
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise UserError("compressed, which Keras never does")
    places = dict(_places(json.loads(archive.read("config.json")), "layers"))
    with archive.open(IN_ARCHIVE) as file:
        return read_hdf5(file, places)


def _places(model: dict, folder: str) -> Iterator[tuple[str, str]]:
    """Where a model's layers stand in its file, by kind, each kind counted through; and their names."""
    counts: Counter[str] = Counter()
    for layer in model["config"]["layers"]:
        words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", layer["class_name"])
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        place = f"{folder}/{kind}_{counts[kind]}" if counts[kind] else f"{folder}/{kind}"
        counts[kind] += 1
        yield place, layer["config"]["name"]
        if "layers" in layer["config"]:
            yield from _places(layer, f"{place}/layers")


def _inside(group: h5py.Group) -> dict[str, Any]:
    """What stands in a group at any depth, each once: hard links are followed, those that lead elsewhere are not."""
    items: dict[str, Any] = {}
    group.visititems(items.__setitem__)
    return items


def _texts(group: h5py.Group, name: str) -> list[str]:
    """A list of names among a group's attributes; Keras cuts a long one into name0, name1 and so on."""
    parts = [name] if name in group.attrs else [f"{name}{i}" for i in range(len(group.attrs))]
    texts = [text for part in parts if part in group.attrs for text in group.attrs[part]]
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _named(weights: h5py.Group, _: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Groups of layers, whose attributes name the variables: all files before Keras 3, and its .h5 of whole models."""
    items = _inside(weights)
    for layer in _texts(weights, "layer_names"):
        names = _texts(items[layer], "weight_names")
        paths = [name.removesuffix(":0").split("/") for name in names]
        of_a_model = len({path[-1] for path in paths}) < len(paths)
        for name, path in zip(names, paths, strict=True):
            yield f"{path[-2] if of_a_model else layer}/{path[-1]}", items.get(f"{layer}/{name}")


def _numbered(weights: h5py.Group, places: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Groups of layers by kind, with numbered variables: Keras 3, whose later versions keep the layers' names there."""
    items = _inside(weights)
    for path, dataset in items.items():
        if (match := NUMBERED.fullmatch(path)) is None:
            continue
        place, kind, number = match[1], match[2], int(match[3])
        own = items[f"{place}/vars"]
        name = places.get(place, own.attrs.get("name"))
        if name is None:
            raise UserError("it holds no names of layers, as weights alone of early Keras 3; save the model as .keras")
        leaves = VARIABLES.get(kind, ())
        if kind == "batch_normalization" and len(own) == 3:  # scale=False
            leaves = leaves[1:]
        yield f"{name}/{leaves[number] if number < len(leaves) else number}", dataset


def _is_plain(dataset: Any) -> bool:
    """Whether it is an array of numbers in one piece, all of it in this file, unpacked."""
    return (
        isinstance(dataset, h5py.Dataset)
        and (dataset.dtype.kind in "fiub" or dataset.dtype == "V2")
        and dataset.chunks is None
        and not dataset.is_virtual
        and not dataset.external
        and dataset.id.get_storage_size() == dataset.nbytes
    )


def _recounted(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With layers that Keras named itself counted from 1, each kind in its order."""
    layers = {key: key.rpartition("/")[0] for key in arrays}
    found = {layer: match for layer in layers.values() if (match := COUNTED.fullmatch(layer))}
    counted = sorted(found, key=lambda layer: (found[layer][1], int(found[layer][2] or 0)))
    names = {
        layer: f"{kind}_{i}"
        for kind, same in groupby(counted, key=lambda layer: found[layer][1])
        for i, layer in enumerate(same, start=1)
    }
    return {names.get(layers[key], layers[key]) + key[len(layers[key]) :]: array for key, array in arrays.items()}
