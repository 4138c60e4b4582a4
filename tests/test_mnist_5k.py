import hashlib
from importlib import resources

import numpy as np
import pytest

from cnn_jax.data import mnist_5k, open_dataset


def test_the_file_is_mlxtends_byte_for_byte():
    raw = (resources.files("cnn_jax.data") / "mnist_5k.csv.gz").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


@pytest.mark.parametrize(("split", "per_digit"), [("train", 400), ("test", 100)])
def test_the_split_is_stratified(split, per_digit):
    images, labels = mnist_5k.read_split(split)
    assert images.shape == (10 * per_digit, 28, 28, 1) and images.dtype == np.uint8
    assert labels.dtype == np.int32
    assert np.bincount(labels).tolist() == [per_digit] * 10


def test_no_image_is_in_both_splits():
    train, test = (mnist_5k.read_split(split)[0] for split in ("train", "test"))
    seen = {image.tobytes() for image in train}
    assert len(seen) == 4_000
    assert not seen & {image.tobytes() for image in test}


@pytest.mark.parametrize("split", ["train", "test"])
def test_tfds_gives_the_same_images_in_the_same_order(split, data_dir):
    dataset = open_dataset("mnist_5k", split, data_dir)
    images, labels = mnist_5k.read_split(split)
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert dataset.classes == tuple("0123456789")
