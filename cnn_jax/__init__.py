"""The classic convolutional networks in JAX and Flax linen.

The public names load on first use, so `import cnn_jax` costs neither JAX nor any plotting or
data library. It tells XLA what `cnn_jax.platform` says, so it belongs before JAX's first use.
"""

import importlib

from cnn_jax.platform import add_flags, always

__version__ = "0.1.0"

_PUBLIC = {
    "UserError": "cnn_jax.errors",
    "create_model": "cnn_jax.models",
    "list_models": "cnn_jax.models",
    "model_info": "cnn_jax.models",
    "extract_features": "cnn_jax.models.features",
    "fold_batch_norm": "cnn_jax.models.fold",
    "stack_blocks": "cnn_jax.models.stacked",
    "unstack_blocks": "cnn_jax.models.stacked",
    "functional": "cnn_jax.models.functional",
    "lowering": "cnn_jax.layers",
    "open_dataset": "cnn_jax.data",
    "import_state_dict": "cnn_jax.weights",
    "export_state_dict": "cnn_jax.weights",
    "read_state_dict": "cnn_jax.weights",
    "load_variables": "cnn_jax.training.checkpoint",
    "RECIPES": "cnn_jax.recipes",
    "Recipe": "cnn_jax.recipes",
}

__all__ = list(_PUBLIC)

add_flags(always())


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cnn_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
