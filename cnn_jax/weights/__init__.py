"""Weights in and out: what is published, state dicts of other libraries, and files that hold them."""

from cnn_jax.weights.cards import WEIGHT_CARDS, WeightCard, weight_card
from cnn_jax.weights.files import read_state_dict
from cnn_jax.weights.layout import export_state_dict, import_state_dict

__all__ = ["WEIGHT_CARDS", "WeightCard", "export_state_dict", "import_state_dict", "read_state_dict", "weight_card"]
