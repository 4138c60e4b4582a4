"""The classic convolutional networks in JAX and Flax linen.

The public names and the rooms, such as `cnn_jax.models`, load on first use, so `import cnn_jax` costs neither
JAX nor any plotting or data library. It tells XLA what `cnn_jax.platform` says, so it belongs before JAX's first use.
"""

import importlib
from typing import TYPE_CHECKING

from cnn_jax.platform import add_flags, always

if TYPE_CHECKING:  # the same as _PUBLIC, for editors and type checkers
    from cnn_jax.data import open_dataset as open_dataset
    from cnn_jax.errors import UserError as UserError
    from cnn_jax.export import export_network as export_network
    from cnn_jax.layers import lowering as lowering
    from cnn_jax.models import create_model as create_model
    from cnn_jax.models import list_models as list_models
    from cnn_jax.models import model_info as model_info
    from cnn_jax.models.features import extract_features as extract_features
    from cnn_jax.models.fold import fold_batch_norm as fold_batch_norm
    from cnn_jax.models.functional import functional as functional
    from cnn_jax.models.stacked import stack_blocks as stack_blocks
    from cnn_jax.models.stacked import unstack_blocks as unstack_blocks
    from cnn_jax.prediction import predict as predict
    from cnn_jax.preprocessing import preprocess as preprocess
    from cnn_jax.recipes import RECIPES as RECIPES
    from cnn_jax.recipes import Recipe as Recipe
    from cnn_jax.training.checkpoint import load_variables as load_variables
    from cnn_jax.training.trained import load_run as load_run
    from cnn_jax.weights import export_state_dict as export_state_dict
    from cnn_jax.weights import import_state_dict as import_state_dict
    from cnn_jax.weights import load_pretrained as load_pretrained
    from cnn_jax.weights import read_state_dict as read_state_dict
    from cnn_jax.weights import save_pretrained as save_pretrained
    from cnn_jax.weights import weight_card as weight_card

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
    "preprocess": "cnn_jax.preprocessing",
    "predict": "cnn_jax.prediction",
    "lowering": "cnn_jax.layers",
    "open_dataset": "cnn_jax.data",
    "export_network": "cnn_jax.export",
    "import_state_dict": "cnn_jax.weights",
    "export_state_dict": "cnn_jax.weights",
    "read_state_dict": "cnn_jax.weights",
    "load_pretrained": "cnn_jax.weights",
    "save_pretrained": "cnn_jax.weights",
    "weight_card": "cnn_jax.weights",
    "load_variables": "cnn_jax.training.checkpoint",
    "load_run": "cnn_jax.training.trained",
    "RECIPES": "cnn_jax.recipes",
    "Recipe": "cnn_jax.recipes",
}

_ROOMS = (
    "captioning",
    "data",
    "evaluation",
    "export",
    "layers",
    "models",
    "recipes",
    "tasks",
    "training",
    "visualize",
    "weights",
)

__all__ = list(_PUBLIC)

add_flags(always())


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"cnn_jax.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cnn_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS, "__version__"]
