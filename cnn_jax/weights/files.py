"""State dicts from files: safetensors, NumPy archives, and PyTorch's and Keras's own without PyTorch and Keras.

A `.pth` file is a pickle, and a pickle may run any code. Here only tensors are rebuilt, by name; whatever
else a file asks for is an object that does nothing, and where a tensor belongs it is refused. No file takes more
memory than a few times its size.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from cnn_jax.errors import UserError, first_line

SAFETENSORS_TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
STORAGES = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": np.bool_,
}  # fmt: skip
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the weights
NESTED = 3  # wrappers inside each other
HEADER = 100_000_000  # bytes, the longest that safetensors writes and reads
UNFOLDED, TIMES = 1 << 26, 20  # bytes that an archive may come to, or times its size; weights shrink by a tenth or two


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a `.safetensors`, `.npz`, PyTorch `.pth` (zip or legacy), or Keras `.h5` or `.keras` file, by name.

    What a file is, its content says, not its name. A checkpoint that keeps its weights under
    "state_dict" or "model" beside other things is unwrapped.

    Raises:
      UserError: no such file, not one of these formats, damaged, or not made of tensors alone.
    """
    from cnn_jax.weights import keras_files  # loads HDF5

    path = Path(path)
    if not path.is_file():
        raise UserError(f"no weight file {path}")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = file.read(9)
            file.seek(0)
            if start[8:9] == b"{":
                return _safetensors(file, size)
            if start[:1] == b"\x80":
                return _legacy_pth(file)
            if start[:8] == HDF5_MAGIC:
                return keras_files.read_hdf5(file)
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    if (unfolded := sum(each.file_size for each in archive.infolist())) > max(UNFOLDED, TIMES * size):
                        raise UserError(f"refused: its {size:,} bytes would become {unfolded:,}")
                    if keras_files.IN_ARCHIVE in archive.namelist():
                        return keras_files.read_archive(archive)
                    pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                    if pickled:
                        return _zip_pth(archive, pickled[0])
                with np.load(path, allow_pickle=False) as arrays:
                    # NumPy writes bfloat16 as two nameless bytes.
                    return {k: v.view(ml_dtypes.bfloat16) if v.dtype == "V2" else v for k, v in arrays.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file fails anywhere in three parsers
        objects = "allow_pickle" in str(error)  # NumPy's advice, which is none for a stranger's file
        why = "it holds Python objects, not plain arrays" if objects else first_line(error)
        raise UserError(f"{path} is damaged or not a weight file: {why}") from error
    raise UserError(f"{path} is none of .safetensors, .npz, PyTorch's .pth and Keras's .h5 and .keras")


def _safetensors(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    (header,) = struct.unpack("<Q", file.read(8))
    if header > min(HEADER, size - 8):
        raise UserError(f"damaged: a header of {header:,} bytes in a file of {size:,}")
    file.seek(0)
    arrays = {}
    for name, entry in safetensors.deserialize(file.read()):
        if entry["dtype"] not in SAFETENSORS_TYPES:
            raise UserError(f"{name} is of type {entry['dtype']}, which is not read here")
        arrays[name] = np.frombuffer(entry["data"], SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    """A view of a storage whose bytes may come later in the file."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _array(tensor: _Tensor, data: bytes) -> np.ndarray:
    """The numbers of a tensor. Nothing in it is believed: as_strided would read any memory."""
    offset, shape, strides = tensor.offset, tuple(tensor.shape), tuple(tensor.strides)
    values = np.frombuffer(data, STORAGES[tensor.storage.dtype])
    whole = all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)) and len(shape) == len(strides)
    if whole and math.prod(shape) == 0:
        return np.zeros(shape, values.dtype)
    # A view repeats no number in a state dict, so none is larger than its storage.
    last = whole and offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=False))
    if not whole or math.prod(shape) > len(values) or last >= len(values):
        raise UserError("damaged: a tensor reaches beyond its storage")
    steps = [stride * values.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps)  # no copy: thousands may share a storage


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor, *_) -> _Tensor:
    return tensor


ADMITTED = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
} | {f"torch.{name}": name for name in STORAGES}  # a text: nothing that a pickle could call


class _Inert:
    """Stands for a class or function that is not admitted, and for what it makes: an argparse.Namespace, a date.

    It takes whatever a pickle does to it, and does nothing.
    """

    __slots__ = ("name",)

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return super().__new__(cls) if isinstance(cls, type) else cls  # the opcode NEWOBJ takes it for a class

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> "_Inert":
        return self

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    extend = add = append


def _skip_attributes(unpickler: Any) -> None:
    """In place of BUILD, which sets attributes: state dicts have `_metadata`, and nothing here reads it."""
    unpickler.stack.pop()


def _refuse(value: object) -> None:
    if isinstance(value, _Inert):
        raise UserError(f"refused: it holds {value.name}, not tensors of usual types alone; save a plain state_dict()")


class _Unpickler(pickle._Unpickler):
    """Rebuilds dicts, lists, numbers, texts and tensors; anything else is an _Inert.

    Python's own unpickler, not the one in C: its memo is a dict, so no index makes it large, and
    what an opcode may do can be said here.
    """

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _skip_attributes}
    del dispatch[pickle.BYTEARRAY8[0]]  # fills as much memory as it says, and no state dict has one

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        return ADMITTED[wanted] if wanted in ADMITTED else _Inert(wanted)

    def persistent_load(self, pid: tuple) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or dtype not in STORAGES or any(view):
            raise UserError(f"refused: it holds a {kind!r} that is not a storage of numbers")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, size))


def _zip_pth(archive: zipfile.ZipFile, pickled: str) -> dict[str, np.ndarray]:
    folder = pickled.removesuffix("data.pkl")
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise UserError("compressed, which torch.save never does")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise UserError("written on a big-endian machine, which is not read here")
    value = _Unpickler(io.BytesIO(archive.read(pickled))).load()
    return _arrays(value, lambda storage: archive.read(f"{folder}data/{storage.key}"))


def _legacy_pth(file: BinaryIO) -> dict[str, np.ndarray]:
    """Magic, protocol, platform, the value, the storages' keys: five pickles; then each storage's bytes."""
    magic = _Unpickler(file).load()
    _refuse(magic)
    if magic != LEGACY_MAGIC:
        raise UserError("a pickle, but not one of torch.save")
    _Unpickler(file).load(), _Unpickler(file).load()
    unpickler = _Unpickler(file)
    value = unpickler.load()
    data = {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        data[key] = file.read(count * np.dtype(STORAGES[unpickler.storages[key].dtype]).itemsize)
    return _arrays(value, lambda storage: data[storage.key])


def _arrays(value: object, read: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    """The state dict in a checkpoint, with its tensors read."""
    for _ in range(NESTED):  # a dict may hold itself
        value = next((value[w] for w in WRAPPERS if isinstance(value, dict) and isinstance(value.get(w), dict)), value)
    _refuse(value)
    if not isinstance(value, dict):
        raise UserError(f"holds no state dict, a mapping of names to tensors: it is a {type(value).__name__}")
    others = [name for name, tensor in value.items() if not (isinstance(name, str) and isinstance(tensor, _Tensor))]
    for name in others:
        _refuse(value[name])
    if others:
        told = ", ".join(repr(name) if isinstance(name, str | int) else type(name).__name__ for name in others[:5])
        raise UserError(f"holds no state dict, a mapping of names to tensors: {told} are no tensors")
    data: dict[_Storage, bytes] = {}
    for tensor in value.values():
        if tensor.storage not in data:
            data[tensor.storage] = read(tensor.storage)
    return {name: _array(tensor, data[tensor.storage]) for name, tensor in value.items()}
