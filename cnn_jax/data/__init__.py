"""Data sets by random access, their order, and what happens to images on the host and on the device."""

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.sources import open_dataset

__all__ = ["Dataset", "open_dataset"]
