"""What a CPU computes by compiled code of our own and by oneDNN: the extra `onednn`, for Linux on x86-64.

layers/cpp is compiled at first use (5 s), by the C++ compiler that is there, and kept in the user's cache; XLA calls it
inside of its programs. Where the library is not installed nothing happens; where it is and no compiler works, one line
says so. Then XLA computes.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.compilation import default_folder
from cnn_jax.errors import first_line
from cnn_jax.layers.geometry import Geometry

SOURCES = Path(__file__).parent / "cpp"  # native.cc and its headers
PACKAGES = {"onednn-cpu-gomp": "onednn-devel-cpu-gomp", "onednn": "onednn-devel"}  # the library: its headers
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-w", "-shared", "-fPIC")
KINDS = ("conv", "input_grad", "kernel_grad")  # as in onednn.h


def convolution(name: str, geometry: Geometry, first: jax.Array, second: jax.Array) -> jax.Array:
    """Primitive `name` of layers/primitives.py: two float32 arrays -> one. To be called where `ready()`."""
    if name == "conv":
        shape = (first.shape[0], *geometry.out, second.shape[3])
    elif name == "input_grad":
        shape = (first.shape[0], *geometry.size, second.shape[2] * geometry.groups)
    else:
        shape = (*geometry.window, first.shape[3] // geometry.groups, second.shape[3])
    numbers = (
        KINDS.index(name),
        *geometry.stride,
        *(pad for pads in geometry.padding for pad in pads),
        geometry.groups,
        *geometry.dilation,
    )
    return _call("convolution", jnp.zeros(shape, jnp.float32), first, second, numbers=np.array(numbers, np.int64))


def moments(x: jax.Array) -> list[jax.Array]:
    """channels.moments of (G, N, C) float32."""
    return _call("moments", [x[:, 0], x[:, 0]], x)


def sums(x: jax.Array, g: jax.Array) -> list[jax.Array]:
    """Over N: x * g and g, (G, N, C) float32 -> two (G, C)."""
    groups, rows, channels = x.shape
    # Few channels would fill few lanes of a register: so many values of N side by side.
    side = next(n for n in (16, 8, 4, 2, 1) if rows % n == 0) if channels < 16 else 1
    x, g = (array.reshape(groups, rows // side, side * channels) for array in (x, g))
    found = _call("sums", [x[:, 0], x[:, 0]], x, g)
    return [one.reshape(groups, side, channels).sum(1) for one in found]


def window_max(x: jax.Array, *, geometry: Geometry) -> jax.Array:
    """windows.window_max of (B, H, W, C) float32."""
    y = jnp.zeros((x.shape[0], *geometry.out, x.shape[3]), jnp.float32)
    return _call("window_max", y, x, numbers=_windows(geometry))


def window_max_grad(g: jax.Array, x: jax.Array, *, geometry: Geometry) -> jax.Array:
    """Its gradient: (B, H', W', C) float32 and the images -> (B, H, W, C)."""
    return _call("window_max_grad", x, g, x, numbers=_windows(geometry))


def _windows(geometry: Geometry) -> np.ndarray:
    (top, _), (left, _) = geometry.padding
    return np.array([*geometry.window, *geometry.stride, top, left], np.int64)


def _call(name: str, like, *arrays: jax.Array, **attributes):
    kinds = jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), like)
    return jax.ffi.ffi_call(f"cnn_jax_{name}", kinds)(*arrays, **attributes)


@cache
def ready() -> bool:
    """Whether oneDNN computes; the first call compiles and loads."""
    if not (found := _installed()):
        return False
    try:
        library = ctypes.CDLL(str(_built(*found)))
    except (OSError, RuntimeError) as error:
        print(f"oneDNN is not used, XLA computes: {first_line(error)}", file=sys.stderr, flush=True)
        return False
    for name in ("convolution", "moments", "sums", "window_max", "window_max_grad"):
        jax.ffi.register_ffi_target(f"cnn_jax_{name}", jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return True


def _installed() -> tuple[Path, Path] | None:
    """libdnnl.so.3 and the folder of dnnl.hpp, as the packages have them."""
    for library, headers in PACKAGES.items():
        try:
            files = [*(metadata.files(library) or ()), *(metadata.files(headers) or ())]
        except metadata.PackageNotFoundError:
            continue
        places = {file.name: Path(str(file.locate())).resolve() for file in files if "oneapi" not in file.parts}
        if "libdnnl.so.3" in places and "dnnl.hpp" in places:
            return places["libdnnl.so.3"], places["dnnl.hpp"].parent
    return None


def _built(library: Path, headers: Path) -> Path:
    """The compiled native.cc, from the cache or made now."""
    text = [file.read_text() for file in sorted((*SOURCES.glob("*.h"), SOURCES / "native.cc"))]
    facts = (text, OPTIONS, jax.__version__, library, library.stat().st_size, default_folder().name)
    path = default_folder().parent / f"native-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.so"
    if path.exists():
        return path
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise FileNotFoundError("no C++ compiler is there (c++, g++, clang++ or $CXX)")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # who writes here runs code in our name
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        places = [f"-I{headers}", f"-I{jax.ffi.include_dir()}", f"-Wl,-rpath,{library.parent}"]
        command = [compiler, *OPTIONS, *places, str(SOURCES / "native.cc"), str(library), "-o", str(made)]
        if (run := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
            raise RuntimeError(f"{compiler} fails: {run.stderr}")
        made.replace(path)  # whole, or not at all: other processes may be at it, too
    return path
