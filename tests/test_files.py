import copyreg
import os
import pickle
import struct
import zipfile
from functools import partial
from pathlib import Path, PurePath

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from cnn_jax import UserError, read_state_dict
from cnn_jax.weights.files import _array, _rebuild_parameter, _Storage, _Tensor

FILES = Path(__file__).parent / "torch_files"
BASE = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_pytorch_files_hold_what_was_saved(name):
    arrays = read_state_dict(FILES / name)
    np.testing.assert_array_equal(arrays["conv.weight"], np.arange(54).reshape(3, 2, 3, 3) / 64)
    np.testing.assert_array_equal(arrays["conv.bias"], [1, -2, 3])
    np.testing.assert_array_equal(arrays["norm.running_var"], np.ones(3))
    np.testing.assert_array_equal(arrays["transposed"], BASE.T)  # a view with strides
    np.testing.assert_array_equal(arrays["slice"], BASE[1:3, 2:5])  # a view with an offset
    np.testing.assert_array_equal(arrays["parameter"], BASE[0])
    assert arrays["empty"].shape == (0, 3)
    assert arrays["scalar"].shape == () and arrays["scalar"] == 7
    types = {"half": np.float16, "bfloat16": ml_dtypes.bfloat16, "double": np.float64, "uint8": np.uint8}
    for key, dtype in types.items():
        assert arrays[key].dtype == dtype
        np.testing.assert_array_equal(arrays[key].astype(np.float32), BASE)
    np.testing.assert_array_equal(arrays["bool"], BASE > 5)


def test_a_training_checkpoint_is_unwrapped():
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys = {"module.conv.weight", "module.conv.bias", *(f"module.norm.{key}" for key in norm)}
    assert set(read_state_dict(FILES / "checkpoint.pth")) == keys


def test_what_is_no_tensor_is_refused_by_name_where_a_tensor_belongs():
    with pytest.raises(UserError, match=r"module.pth: refused: it holds __main__.Net, not tensors of usual types"):
        read_state_dict(FILES / "module.pth")


def test_weights_beside_a_namespace_are_read():
    """As timm's training script saves them: {"state_dict": ..., "args": argparse.Namespace(...)}."""
    with zipfile.ZipFile(FILES / "namespace.pth") as archive:
        (pickled,) = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    assert b"argparse" in pickled and b"Namespace" in pickled
    assert read_state_dict(FILES / "namespace.pth")


class Exploit:
    """Runs a command when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


class Holder(list):
    """Unpickled by the opcodes for instances, their attributes, items of lists and of mappings."""

    def __reduce_ex__(self, protocol):
        attributes, items = {"hurt": list(self)}, [("key", "value")]
        return copyreg.__newobj__, (Holder,), attributes, iter(self), iter(items)


def zipped(path, value):
    """A file as torch.save makes it, with any pickle inside."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", value if isinstance(value, bytes) else pickle.dumps(value, protocol=2))
    return path


@pytest.mark.parametrize("in_zip", [True, False])
def test_a_hostile_pickle_runs_nothing(tmp_path, in_zip):
    file, trace = tmp_path / "evil.pth", tmp_path / "trace"
    if in_zip:
        zipped(file, {"weight": Exploit(trace)})
    else:
        file.write_bytes(pickle.dumps(Exploit(trace), protocol=2))
    with pytest.raises(UserError, match=r"refused: it holds (posix|nt)\.system, not tensors"):
        read_state_dict(file)
    assert not trace.exists()


def test_what_stands_beside_weights_stays_inert(tmp_path):
    trace = tmp_path / "trace"
    beside = [
        Exploit(trace),
        Holder([Exploit(trace)]),
        partial(os.system, f"touch {trace}"),
        np.float64(1.5),
        PurePath(),
    ]
    assert read_state_dict(zipped(tmp_path / "c.pth", {"state_dict": {}, "args": beside, "epoch": 3})) == {}
    assert not trace.exists()


def test_a_pickle_without_an_end_or_a_measure_is_refused(tmp_path):
    itself: dict = {}
    itself["model"] = itself
    filled = pickle.BYTEARRAY8 + struct.pack("<Q", 1 << 40)  # a terabyte
    for value, line in (
        (itself, "'model' are no tensors"),
        (b"\x80\x05" + filled, "damaged"),
        ({(): 1}, "tuple are no"),
    ):
        with pytest.raises(UserError, match=line):
            read_state_dict(zipped(tmp_path / "evil.pth", value))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("wrapping_product.pth", "damaged"),  # shape (int16(256), int16(256)): NumPy's product is 0
        ("wrapping_stride.pth", "damaged"),  # int32 arithmetic that overflows to a small offset
        ("repeating.pth", "reaches beyond its storage"),  # strides of 0 that would fill the memory
    ],
)
def test_a_hostile_tensor_reads_no_foreign_memory(name, line):
    with pytest.raises(UserError, match=line):
        read_state_dict(FILES / name)


def test_a_pickle_changes_nothing_here():
    """It asks to set attributes of the function that rebuilds parameters."""
    read_state_dict(FILES / "attributes.pth")
    assert _rebuild_parameter.__dict__ == {}


def test_a_compressed_archive_is_refused(tmp_path):
    """torch.save never compresses, and a small file could unfold without end."""
    with zipfile.ZipFile(FILES / "zip.pth") as whole, zipfile.ZipFile(tmp_path / "z.pth", "w", 8) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(UserError, match="compressed"):
        read_state_dict(tmp_path / "z.pth")


def test_tensors_of_one_storage_share_its_memory():
    """Thousands may stand in a small pickle, each as large as the file."""
    data, storage = BASE.tobytes(), _Storage("0", "FloatStorage", 24)
    whole, rows = _Tensor(storage, 0, (24,), (1,)), _Tensor(storage, 0, (4, 6), (6, 1))
    assert np.shares_memory(_array(whole, data), _array(rows, data))


def test_an_archive_that_would_unfold_without_measure_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", weight=np.zeros(1 << 25, np.float32))
    assert (tmp_path / "bomb.npz").stat().st_size < 200_000
    with pytest.raises(UserError, match=r"bomb.npz: refused: its 1\d\d,\d\d\d bytes would become 134,217,856"):
        read_state_dict(tmp_path / "bomb.npz")


def test_a_safetensors_header_beyond_measure_is_not_read(tmp_path):
    path = tmp_path / "long.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2 << 30) + b"{")
        file.truncate((2 << 30) + 8)  # all there, on paper
    with pytest.raises(UserError, match="damaged: a header of 2,147,483,648 bytes in a file of 2,147,483,656"):
        read_state_dict(path)
    path.write_bytes(struct.pack("<Q", 90_000_000) + b"{}")
    with pytest.raises(UserError, match="damaged: a header of 90,000,000 bytes in a file of 10"):
        read_state_dict(path)


def test_numpy_archives_of_bfloat16_are_read(tmp_path):
    np.savez(tmp_path / "b.npz", w=np.array([1.5, -2], ml_dtypes.bfloat16))
    assert read_state_dict(tmp_path / "b.npz")["w"].dtype == ml_dtypes.bfloat16


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    """as_strided over too small a buffer would read foreign memory."""
    with zipfile.ZipFile(FILES / "zip.pth") as archive, zipfile.ZipFile(tmp_path / "short.pth", "w") as short:
        for name in archive.namelist():
            data = archive.read(name)
            short.writestr(name, data[:4] if "/data/" in name else data)
    with pytest.raises(UserError, match="reaches beyond its storage"):
        read_state_dict(tmp_path / "short.pth")


def test_safetensors_and_numpy_archives_are_read(tmp_path):
    arrays = {"a.weight": BASE, "b": BASE.astype(np.float16)}
    save_file(arrays, tmp_path / "weights.safetensors")
    np.savez(tmp_path / "weights.npz", **arrays)
    for name in ("weights.safetensors", "weights.npz"):
        read = read_state_dict(tmp_path / name)
        assert set(read) == set(arrays)
        for key, value in arrays.items():
            np.testing.assert_array_equal(read[key], value, strict=True)


def test_safetensors_of_bfloat16_are_read(tmp_path):
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = np.array([1.5, -2], ml_dtypes.bfloat16).tobytes()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.safetensors")["w"].astype(np.float32), [1.5, -2])


def test_a_numpy_archive_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([Exploit(tmp_path / "trace")]))
    with pytest.raises(
        UserError, match="objects.npz is damaged or not a weight file: it holds Python objects, not plain"
    ):
        read_state_dict(tmp_path / "objects.npz")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "checkpoint.pth"])
def test_a_truncated_file_is_told_in_one_line(tmp_path, name):
    whole = (FILES / name).read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9, 0.99):
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError) as error:
            read_state_dict(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_told_what_would_be_right(tmp_path):
    (tmp_path / "notes.txt").write_text("no weights")
    with pytest.raises(
        UserError, match=r"is none of \.safetensors, \.npz, PyTorch's \.pth and Keras's \.h5 and \.keras"
    ):
        read_state_dict(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="no weight file"):
        read_state_dict(tmp_path / "absent.pth")
