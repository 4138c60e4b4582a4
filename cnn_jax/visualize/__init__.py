"""Pictures of a run, of what a network got wrong and of a data set. Needs matplotlib (the `viz` extra).

The names load on first use: a picture of a data set costs no JAX.
"""

import importlib
import importlib.util

_PICTURES = ("draw_confusion", "draw_curves", "draw_mistakes", "draw_reliability")
_PUBLIC = {
    **dict.fromkeys(_PICTURES, "cnn_jax.visualize.pictures"),
    "draw_augmentations": "cnn_jax.visualize.augmentations",
    "draw_samples": "cnn_jax.visualize.samples",
}

__all__ = list(_PUBLIC)


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cnn_jax.visualize' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
