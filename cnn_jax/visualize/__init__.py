"""What a network looks at, and pictures: of that, of runs, of what a network got wrong, of a data set.

Pictures need matplotlib (the `viz` extra). The names load on first use: a picture of a data set costs no JAX.
"""

import importlib
import importlib.util

_PICTURES = ("draw_confusion", "draw_curves", "draw_mistakes", "draw_reliability")
_GRADIENTS = ("deconvnet", "guided_backprop", "input_gradient", "integrated_gradients", "saliency")
_CAMS = ("gradcam", "gradcam_plus_plus", "layercam")
_PERTURBATIONS = ("deletion", "insertion", "occlusion")
_OWN_IMAGES = ("activation_maximization", "first_filters")
_PANELS = ("as_picture", "draw_panels", "overlay", "tiles")
_PUBLIC = {
    **dict.fromkeys(_PICTURES, "cnn_jax.visualize.pictures"),
    **dict.fromkeys(_GRADIENTS, "cnn_jax.visualize.gradients"),
    **dict.fromkeys(_CAMS, "cnn_jax.visualize.cam"),
    **dict.fromkeys(_PERTURBATIONS, "cnn_jax.visualize.perturbations"),
    **dict.fromkeys(_OWN_IMAGES, "cnn_jax.visualize.maximisation"),
    **dict.fromkeys(_PANELS, "cnn_jax.visualize.panels"),
    "draw_comparison": "cnn_jax.visualize.comparison",
    **dict.fromkeys(("draw_attention", "draw_captions"), "cnn_jax.visualize.captions"),
    "draw_augmentations": "cnn_jax.visualize.augmentations",
    **dict.fromkeys(("draw_distances", "draw_map", "draw_neighbours"), "cnn_jax.visualize.embeddings"),
    "draw_masks": "cnn_jax.visualize.masks",
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
