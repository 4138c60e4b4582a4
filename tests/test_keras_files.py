import gzip
import io
import zipfile
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cnn_jax import UserError, import_state_dict, read_state_dict

FILES = Path(__file__).parent / "keras_files"
# The variables of the small network in Keras's order; each is filled with its number.
NORM = ("gamma", "beta", "moving_mean", "moving_variance")
VARIABLES = (
    "first/kernel", "first/bias", *(f"first_bn/{leaf}" for leaf in NORM),
    "conv2d_1/kernel", *(f"batch_normalization_1/{leaf}" for leaf in NORM[1:]), "conv2d_2/kernel",
    "dw/kernel", "sep/depthwise_kernel", "sep/pointwise_kernel", "predictions/kernel", "predictions/bias",
)  # fmt: skip
SHAPES = {"first/kernel": (3, 3, 2, 3), "dw/kernel": (3, 3, 3, 1), "sep/pointwise_kernel": (1, 1, 3, 2)}


@pytest.fixture
def unpacked(tmp_path):
    """A function that lays one of the files into the test's folder, unpacked."""

    def lay(name: str) -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.decompress((FILES / f"{name}.gz").read_bytes()))
        return path

    return lay


def assert_read(arrays):
    assert set(arrays) == set(VARIABLES)
    for number, key in enumerate(VARIABLES):
        assert np.all(arrays[key] == number), key
    for key, shape in SHAPES.items():
        assert arrays[key].shape == shape


@pytest.mark.parametrize(
    "name", ["model.keras", "model.h5", "model.weights.h5", "weights.h5", "nested.keras", "nested.h5"]
)
def test_every_kind_of_file_gives_the_variables_by_their_names(unpacked, name):
    """Layers without names were the session's third and fourth convolution, and count from 1; the Lambda never runs."""
    assert_read(read_state_dict(unpacked(name)))


def nameless(data: bytes) -> bytes:
    """A file of Keras 3's weights as it was before the groups had the layers' names."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["model.keras", "nested.keras"])
def test_an_early_archive_has_the_names_in_its_configuration(unpacked, name):
    path = unpacked(name)
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for part, data in parts.items():
            archive.writestr(part, nameless(data) if part.endswith(".h5") else data)
    assert_read(read_state_dict(path))


def test_early_weights_without_names_are_told(unpacked):
    path = unpacked("model.weights.h5")
    path.write_bytes(nameless(path.read_bytes()))
    with pytest.raises(UserError, match=r"holds no names of layers, .* save the model as \.keras"):
        read_state_dict(path)


def test_an_archive_that_is_compressed_is_refused(unpacked, tmp_path):
    with zipfile.ZipFile(unpacked("model.keras")) as whole, zipfile.ZipFile(tmp_path / "z.keras", "w", 8) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(UserError, match="compressed"):
        read_state_dict(tmp_path / "z.keras")


def old_file(path: Path, layers: dict[str, dict[str, np.ndarray]]) -> Path:
    """Weights as Keras 1 and 2 keep them; the list of names in two parts, as where it is long."""
    with h5py.File(path, "w") as file:
        half = len(layers) // 2
        file.attrs["layer_names0"] = np.array(list(layers)[:half], "S")
        file.attrs["layer_names1"] = np.array(list(layers)[half:], "S")
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array(list(weights), "S") if weights else []
            for name, array in weights.items():
                group[name] = array
    return path


def test_a_long_list_of_names_may_be_cut(tmp_path):
    layers = {"input": {}, "conv1/bn": {"conv1/bn/gamma:0": np.ones(2)}, "c": {"c_1/kernel:0": np.zeros((2, 3))}}
    arrays = read_state_dict(old_file(tmp_path / "old.h5", layers))
    assert {key: value.shape for key, value in arrays.items()} == {"conv1/bn/gamma": (2,), "c/kernel": (2, 3)}


def test_two_models_in_one_file_do_not_mix(tmp_path):
    body = {f"{layer}/kernel:0": np.ones((2, 2)) for layer in ("a", "b")}
    arrays = read_state_dict(old_file(tmp_path / "one.h5", {"input": {}, "body": body}))
    assert set(arrays) == {"a/kernel", "b/kernel"}
    with pytest.raises(UserError, match=r"two\.h5: it has a/kernel twice"):
        read_state_dict(old_file(tmp_path / "two.h5", {"body": body, "again": body}))


def test_bfloat16_is_read(tmp_path):
    with h5py.File(tmp_path / "b.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "head"
        group.create_dataset("0", data=np.array([[1.5, -2]], ml_dtypes.bfloat16)).attrs["dtype"] = "bfloat16"
    array = read_state_dict(tmp_path / "b.weights.h5")["head/kernel"]
    assert array.dtype == ml_dtypes.bfloat16 and array.tolist() == [[1.5, -2]]


def outside(group, secret):
    group["kernel"] = h5py.ExternalLink(str(secret), "/x")


def soft(group, secret):
    group["kernel"] = h5py.SoftLink("/elsewhere")
    group.file["elsewhere"] = np.ones(3)


def elsewhere(group, secret):
    group.create_dataset("kernel", (8,), np.uint8, external=[(str(secret), 0, 8)])


def virtual(group, secret):
    layout = h5py.VirtualLayout((3,), np.float64)
    layout[:] = h5py.VirtualSource(str(secret), "x", (3,))
    group.create_virtual_dataset("kernel", layout)


def packed(group, secret):
    group.create_dataset("kernel", data=np.zeros(1 << 20, np.float32), compression="gzip")


def never_written(group, secret):
    group.create_dataset("kernel", (1 << 40,), np.float32)


def texts(group, secret):
    group["kernel"] = np.array([b"text", b"more"])


def objects(group, secret):
    group.create_dataset("kernel", (2,), h5py.string_dtype())


def a_group(group, secret):
    group.create_group("kernel")


@pytest.mark.parametrize(
    "put",
    [outside, soft, elsewhere, virtual, packed, never_written, texts, objects, a_group],
    ids=lambda put: put.__name__,
)
def test_a_hostile_file_gives_one_line_and_nothing_from_outside(tmp_path, put):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones(3)
    path = old_file(tmp_path / "evil.h5", {"a": {}, "conv": {}})
    with h5py.File(path, "r+") as file:
        file["conv"].attrs["weight_names"] = [b"kernel"]
        put(file["conv"], secret)
    with pytest.raises(UserError, match=r"evil\.h5") as told:
        read_state_dict(path)
    assert "\n" not in str(told.value)


def test_arrays_that_lie_over_each_other_are_refused(tmp_path):
    """Ninety-nine arrays without a place of their own get that of the hundredth, or they would fill the memory."""
    path = old_file(tmp_path / "evil.h5", {"a": {}, "conv": {"kernel0": np.ones(1 << 14, np.float32)}})
    names = [f"kernel{i}" for i in range(100)]
    with h5py.File(path, "r+") as file:
        file["conv"].attrs["weight_names"] = np.array(names, "S")
        place, size = file["conv/kernel0"].id.get_offset(), file["conv/kernel0"].nbytes
        for name in names[1:]:
            file["conv"].create_dataset(name, (1 << 14,), np.float32)
    data, nowhere = path.read_bytes(), b"\xff" * 8 + size.to_bytes(8, "little")
    assert data.count(nowhere) == 99
    path.write_bytes(data.replace(nowhere, place.to_bytes(8, "little") + size.to_bytes(8, "little")))
    with pytest.raises(UserError, match=r"evil\.h5: damaged: its arrays are larger than the file"):
        read_state_dict(path)


def test_groups_that_hold_themselves_end(tmp_path):
    path = tmp_path / "evil.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers")
        for i in range(30):
            group["a"] = group["b"] = group = group.create_group(f"layers{i}")
        group["top"] = file["/"]
    with pytest.raises(UserError, match="without layers of Keras"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "weights.h5"])
@pytest.mark.parametrize("kept", [9, 600, 0.5, 0.99])
def test_a_truncated_file_is_told(unpacked, name, kept):
    path = unpacked(name)
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept > 1 else int(kept * len(data))])
    with pytest.raises(UserError, match=name) as told:
        read_state_dict(path)
    assert "\n" not in str(told.value)


def test_a_network_of_keras_applications_comes_in(unpacked):
    """MobileNet(alpha=0.25, classes=5), as Keras writes it: 13 blocks of two convolutions with batch norm."""
    variables = import_state_dict("mobilenet_025_keras", read_state_dict(unpacked("mobilenet.keras")))
    found = {path: np.unique(leaf).tolist() for path, leaf in flatten_dict(variables, sep="/").items()}
    layers = ["stem"]
    for stage, blocks in enumerate((1, 2, 2, 6, 2), start=1):
        for j in range(1, blocks + 1):
            layers += [f"stage{stage}_block{j}/depthwise", f"stage{stage}_block{j}/pointwise"]
    places = ("params/{}/conv/kernel", "params/{}/norm/scale", "params/{}/norm/bias")
    places += ("batch_stats/{}/norm/mean", "batch_stats/{}/norm/var")
    in_order = [place.format(layer) for layer in layers for place in places]
    in_order += ["params/head/kernel", "params/head/bias"]
    assert found == {path: [number] for number, path in enumerate(in_order)}
    assert variables["params"]["head"]["kernel"].shape == (256, 5)
    assert variables["params"]["stage2_block1"]["depthwise"]["conv"]["kernel"].shape == (3, 3, 1, 16)
