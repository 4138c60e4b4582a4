"""The 5,000 real garments of Fashion-MNIST that the package carries.

Origin: Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf 2017, 1708.07747; Zalando SE, MIT licence): the first 400
images of each class in its training file and the first 100 in its test file, in the files' order.
"""

from importlib import resources

import numpy as np

SPLITS = ("train", "test")
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def read_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28, 1) uint8, 0 is the background, and labels (N,) int32 of "train" (4,000) or "test" (1,000)."""
    with resources.as_file(resources.files("cnn_jax.data") / "fashion_5k.npz") as path, np.load(path) as file:
        return file[f"x_{split}"][..., None], file[f"y_{split}"].astype(np.int32)
