"""Weights of a small network, drawn, in a file of PyTorch's layout."""

from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from cnn_jax import create_model, export_state_dict, import_state_dict


def drawn(folder: Path) -> tuple[Path, dict]:
    """A file with a ResNet-20 for four classes, and its variables."""
    rng = np.random.default_rng(0)
    model = create_model("resnet20_cifar", num_classes=4)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32), train=False))
    stats = jax.tree.map(lambda leaf: rng.uniform(2, 3, leaf.shape).astype(np.float32), shapes["batch_stats"])
    params = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32) / max(1, np.prod(leaf.shape[:-1])) ** 0.5,
        shapes["params"],
    )
    state_dict = export_state_dict("resnet20_cifar", {"params": params, "batch_stats": stats})
    path = folder / "resnet20.safetensors"
    save_file({key: np.ascontiguousarray(value) for key, value in state_dict.items()}, path)
    return path, import_state_dict("resnet20_cifar", state_dict)
