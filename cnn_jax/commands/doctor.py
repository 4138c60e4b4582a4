"""Whether this machine is set up as it should be: devices, versions, folders, and a convolution against NumPy."""

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.compilation import default_folder
from cnn_jax.errors import UserError, first_line
from cnn_jax.layers import native
from cnn_jax.layers.conv import convolve
from cnn_jax.training.run_folder import versions
from cnn_jax.weights.hub import folder

EXTRAS = {
    "tensorflow_datasets": "data sets by their TFDS names",
    "grain": "decoding beside the step (--engine host)",
    "matplotlib": "pictures (the extra viz)",
    "gcsfs": "gs:// (the extra gcs)",
}
# Float32 on a CPU is rounding alone; a GPU or a TPU may multiply in fewer bits unless it is told otherwise.
ROUNDING = 1e-4


def doctor() -> Iterator[str]:
    """Lines as they are found. Takes a second or two, most of it to compile the convolution.

    Raises:
      UserError: in the end, of all that is wrong, with what would be right.
    """
    wrong: list[str] = []
    yield f"python     {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield f"versions   {', '.join(f'{name} {version}' for name, version in versions().items())}"
    devices = jax.devices()
    yield f"devices    {len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {os.cpu_count()} CPU cores"
    yield f"XLA_FLAGS  {os.environ.get('XLA_FLAGS') or 'none'}"
    wrong += _accelerators(devices[0].platform)
    wrong += _versions()
    if devices[0].platform == "cpu":
        yield f"oneDNN     {'in use' if native.ready() else 'not in use: the extra onednn makes training faster here'}"
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    yield f"optional   {'; '.join(f'no {name}: {EXTRAS[name]}' for name in missing) or 'all there'}"
    folders = {
        "programs": Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or default_folder()),
        "weights": folder(),
        "data sets": Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"),
    }
    for name, path in folders.items():
        yield f"{name:9}  {path}, {_size(path)}"
        if not _writable(path):
            wrong.append(f"{path} cannot be written; {name} are made or fetched anew each time")
    try:
        errors = check_convolution()
    except Exception as error:  # whatever is wrong with the installation
        yield f"self-test  failed: {first_line(error)}"
        wrong.append("JAX cannot compute a convolution here; reinstall jax and jaxlib of one version")
    else:
        told = ", ".join(f"{name} {error:.0e}" for name, error in errors.items())
        yield f"self-test  a convolution's largest relative errors against NumPy: {told}"
        if not max(errors.values()) < ROUNDING:
            wrong.append(f"a convolution is off by more than {ROUNDING:.0e}: do not trust what this machine computes")
    if wrong:
        raise UserError("; ".join(wrong))
    yield "nothing is wrong"


def check_convolution() -> dict[str, float]:
    """Largest errors of a strided 3x3 convolution and its two gradients, by their definition in NumPy, relative."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 9, 9, 3)), rng.standard_normal((3, 3, 3, 4))
    wanted = np.zeros((2, 5, 5, 4))
    pull = rng.standard_normal(wanted.shape)
    padded, to_x, to_kernel = (
        np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))),
        np.zeros((2, 11, 11, 3)),
        np.zeros_like(kernel),
    )
    for row in range(3):
        for column in range(3):
            place = np.s_[:, row : row + 9 : 2, column : column + 9 : 2]
            wanted += padded[place] @ kernel[row, column]
            to_x[place] += pull @ kernel[row, column].T
            to_kernel[row, column] = np.einsum("bhwc,bhwo->co", padded[place], pull)

    @jax.jit
    def computed(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        with jax.default_matmul_precision("highest"):
            y, back = jax.vjp(lambda x, kernel: convolve(x, kernel, 2, 1), x, kernel)
            return y, back(jnp.asarray(pull, jnp.float32))

    found, (by_x, by_kernel) = computed(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    pairs = {
        "forward": (found, wanted),
        "gradient by images": (by_x, to_x[:, 1:-1, 1:-1]),
        "by the kernel": (by_kernel, to_kernel),
    }
    return {name: float(np.abs(a - b).max() / np.abs(b).max()) for name, (a, b) in pairs.items()}


def _accelerators(backend: str) -> list[str]:
    """A device that is here, and that JAX does not use."""
    if backend != "cpu":
        return []
    if Path("/proc/driver/nvidia/version").exists():
        return ["there is an NVIDIA GPU that JAX does not use: uv run --extra cuda13, or pip install 'jax[cuda13]'"]
    if Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists():
        return ["there is a TPU that JAX does not use: uv run --extra tpu, or pip install 'jax[tpu]'"]
    return []


def _versions() -> list[str]:
    """Installed combinations that are known to fail."""
    wrong = []
    jax_version, jaxlib = (_number(name) for name in ("jax", "jaxlib"))
    if jax_version < jaxlib:
        wrong.append(
            f"jaxlib {metadata.version('jaxlib')} is newer than jax {jax.__version__}: install both of one version"
        )
    for plugin in ("jax-cuda12-plugin", "jax-cuda13-plugin"):
        if _number(plugin) not in ((), jaxlib):
            wrong.append(f"{plugin} {metadata.version(plugin)} does not fit jaxlib {metadata.version('jaxlib')}")
    if _number("orbax-checkpoint") >= (1,):
        wrong.append("orbax-checkpoint 1.0 has another interface than the one used here: install a version below 1.0")
    if "tensorflow" in sys.modules:
        wrong.append("TensorFlow was loaded, which nothing here needs; some plugin of this installation loads it")
    return wrong


def _number(name: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in metadata.version(name).split(".")[:3] if part.isdecimal())
    except metadata.PackageNotFoundError:
        return ()


def _size(path: Path) -> str:
    if not path.exists():
        return "not there yet"
    return f"{sum(file.stat().st_size for file in path.rglob('*') if file.is_file()) / 1e6:,.0f} MB"


def _writable(path: Path) -> bool:
    """Whether it, or what it would be made in, can be written."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return there.is_dir() and os.access(there, os.W_OK)
