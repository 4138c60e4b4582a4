"""Data sets as arrays, their order, and what happens to images on the device."""

from cnn_jax.data.sources import Dataset, open_dataset

__all__ = ["Dataset", "open_dataset"]
