"""From pixels to what a network sees, on the device and inside the compiled step.

Images are (B, H, W, C), uint8 or floating, in [0, 255]. What computes new values returns float32, or the images' own
floating type, and computes in float32; what only moves pixels (fit, flip, pad_crop, cutmix) keeps their type. A key
is always an argument, and each image of a batch has its own draws.
"""

from cnn_jax.data.augment.color import color_distortion, pca_color
from cnn_jax.data.augment.geometry import (
    crop_boxes,
    elastic,
    fit,
    flip,
    pad_crop,
    random_affine,
    random_resized_crop,
    scale_jitter,
)
from cnn_jax.data.augment.masks import make_mask_preprocess
from cnn_jax.data.augment.mixing import cutmix, mixup, random_erasing
from cnn_jax.data.augment.policies import autoaugment, randaugment
from cnn_jax.data.augment.preprocess import make_mixing, make_preprocess, normalize

__all__ = [
    "autoaugment",
    "color_distortion",
    "crop_boxes",
    "cutmix",
    "elastic",
    "fit",
    "flip",
    "make_mask_preprocess",
    "make_mixing",
    "make_preprocess",
    "mixup",
    "normalize",
    "pad_crop",
    "pca_color",
    "randaugment",
    "random_affine",
    "random_erasing",
    "random_resized_crop",
    "scale_jitter",
]
