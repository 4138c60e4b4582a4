"""Weights of a small network, drawn, in a file of PyTorch's layout."""

from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from cnn_jax import create_model, export_state_dict, import_state_dict, model_info
from cnn_jax.models.structure import structure


def drawn(
    folder: Path, name: str = "resnet20_cifar", classes: int = 4, file: str = "resnet20.safetensors"
) -> tuple[Path, dict]:
    """A file with a network for so many classes, and its variables."""
    rng = np.random.default_rng(0)
    shapes = structure(create_model(name, num_classes=classes), model_info(name).input_size).variables
    stats = jax.tree.map(lambda leaf: rng.uniform(2, 3, leaf.shape).astype(np.float32), shapes["batch_stats"])
    params = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32) / max(1, np.prod(leaf.shape[:-1])) ** 0.5,
        shapes["params"],
    )
    state_dict = export_state_dict(name, {"params": params, "batch_stats": stats})
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: np.ascontiguousarray(value) for key, value in state_dict.items()}, folder / file)
    return folder / file, import_state_dict(name, state_dict)
