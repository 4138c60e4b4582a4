"""Reference outputs of torchvision, timm and Keras, and the weight rule behind them (tests/golden/README.md)."""

import re
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden"


def references() -> list[str]:
    """Such as "torchvision.resnet50", one for each file."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def trained() -> list[str]:
    """Those whose files hold a training step, not only what evaluation gives."""
    return [name for name in references() if "loss" in np.load(FOLDER / f"{name}.npz").files]


def load(reference: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{reference}.npz") as file:
        return dict(file)


def weights(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state dict that the rule gives for a file's keys and shapes."""
    state_dict, place = {}, 0
    for key, text in zip(golden["keys"].tolist(), golden["shapes"].tolist(), strict=True):
        shape = tuple(int(size) for size in text.split(",") if size)
        leaf = re.split("[./]", key)[-1]  # Keras's keys have slashes
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        if leaf == "num_batches_tracked":
            value = np.zeros(shape, np.int64)
        elif leaf in ("running_mean", "running_var", "moving_mean", "moving_variance"):
            size = int(np.prod(shape))
            value = golden["running_stats"][place : place + size].reshape(shape)
            place += size
        elif leaf in ("bias", "beta"):
            value = 0.1 * rng.standard_normal(shape)
        elif len(shape) == 1:
            value = rng.uniform(0.5, 1.5, shape)
        else:
            inputs = shape[1:] if "/" not in key else shape[:2] if shape[-1] == 1 else shape[:-1]
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(inputs))
        state_dict[key] = value if leaf == "num_batches_tracked" else value.astype(np.float32)
    return state_dict


def images(seed: int, count: int, size: int) -> np.ndarray:
    """Standard normal noise, (count, size, size, 3) float32."""
    return np.random.default_rng(seed).standard_normal((count, size, size, 3)).astype(np.float32)
