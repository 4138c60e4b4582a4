"""Weights in and out: published ones, state dicts of other libraries, and files that hold them."""

from cnn_jax.weights.cards import WEIGHT_CARDS, WeightCard, network_card, weight_card
from cnn_jax.weights.files import read_state_dict
from cnn_jax.weights.layout import export_state_dict, import_state_dict
from cnn_jax.weights.pretrained import load_pretrained
from cnn_jax.weights.saved import save_pretrained

__all__ = [
    "WEIGHT_CARDS",
    "WeightCard",
    "export_state_dict",
    "import_state_dict",
    "load_pretrained",
    "network_card",
    "read_state_dict",
    "save_pretrained",
    "weight_card",
]
