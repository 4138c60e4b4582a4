"""Data sets by random access, their order, and what happens to images on the host and on the device."""

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.sources import open_dataset, open_run

__all__ = ["Dataset", "open_dataset", "open_run"]
