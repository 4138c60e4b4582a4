"""State dicts from files: safetensors, NumPy archives, and PyTorch's own without PyTorch.

A `.pth` file is a pickle, and a pickle may run any code. Here only tensors are rebuilt, by name;
a file that asks for anything else is refused.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from cnn_jax.errors import UserError, first_line

SAFETENSORS_TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64,
    "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
STORAGES = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": np.bool_,
}  # fmt: skip
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
WRAPPERS = ("state_dict", "model", "net")  # where training scripts put the weights of a checkpoint


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a `.safetensors`, `.npz` or PyTorch `.pth` file (zip or legacy), by name.

    What a file is, its content says, not its name. A checkpoint that keeps its weights under
    "state_dict" or "model" beside numbers and texts is unwrapped.

    Raises:
      UserError: no such file, not one of these formats, damaged, or not made of tensors alone.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no weight file {path}")
    try:
        with path.open("rb") as file:
            start = file.read(9)
            file.seek(0)
            if start[8:9] == b"{":
                return _safetensors(file.read())
            if start[:2] == b"\x80\x02":
                return _legacy_pth(file)
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                    if pickled:
                        return _zip_pth(archive, pickled[0])
                with np.load(path, allow_pickle=False) as arrays:
                    return dict(arrays)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file fails anywhere in three parsers
        raise UserError(f"{path} is damaged or not a weight file: {first_line(error)}") from error
    raise UserError(f"{path} is none of .safetensors, .npz and PyTorch's .pth")


def _safetensors(data: bytes) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(entry["data"], SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in safetensors.deserialize(data)
    }


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: type
    size: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage whose bytes may come later in the file."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, data: bytes) -> np.ndarray:
        values = np.frombuffer(data, self.storage.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or (math.prod(self.shape) and last >= len(values)):
            raise UserError("damaged: a tensor reaches beyond its storage")
        strides = [s * values.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor, *_) -> _Tensor:
    return tensor


ADMITTED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
} | {("torch", name): dtype for name, dtype in STORAGES.items()}


class _Unpickler(pickle.Unpickler):
    """Rebuilds dicts, lists, numbers, texts and tensors; anything else is refused."""

    def __init__(self, file):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str) -> Callable:
        if (module_name, global_name) not in ADMITTED:
            raise UserError(f"refused: it holds {module_name}.{global_name}, not tensors alone; save a state_dict()")
        return ADMITTED[module_name, global_name]

    def persistent_load(self, pid: tuple) -> _Storage:
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage" or dtype not in STORAGES.values():
            raise UserError(f"refused: it holds a {kind!r} that is not a storage of numbers")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, size))


def _zip_pth(archive: zipfile.ZipFile, pickled: str) -> dict[str, np.ndarray]:
    folder = pickled.removesuffix("data.pkl")
    value = _Unpickler(io.BytesIO(archive.read(pickled))).load()
    return _arrays(value, lambda storage: archive.read(f"{folder}data/{storage.key}"))


def _legacy_pth(file: BinaryIO) -> dict[str, np.ndarray]:
    """Magic, protocol, platform, the value, the storages' keys: five pickles; then each storage's bytes."""
    if _Unpickler(file).load() != LEGACY_MAGIC:
        raise UserError("a pickle, but not one of torch.save")
    _Unpickler(file).load(), _Unpickler(file).load()
    unpickler = _Unpickler(file)
    value = unpickler.load()
    data = {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        data[key] = file.read(count * np.dtype(unpickler.storages[key].dtype).itemsize)
    return _arrays(value, lambda storage: data[storage.key])


def _arrays(value: object, read: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    """The state dict in a checkpoint, with its tensors read."""
    for wrapper in WRAPPERS:
        if isinstance(value, dict) and isinstance(inner := value.get(wrapper), dict):
            value = inner
            break
    if not isinstance(value, dict) or not all(isinstance(tensor, _Tensor) for tensor in value.values()):
        raise UserError("holds no state dict: a mapping of names to tensors")
    return {str(name): tensor.array(read(tensor.storage)) for name, tensor in value.items()}
