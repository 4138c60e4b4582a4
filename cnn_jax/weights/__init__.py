"""Weights in and out: state dicts of other libraries, and files that hold them."""

from cnn_jax.weights.files import read_state_dict
from cnn_jax.weights.layout import export_state_dict, import_state_dict

__all__ = ["export_state_dict", "import_state_dict", "read_state_dict"]
