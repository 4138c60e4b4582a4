"""Small TFDS data sets in ArrayRecord files, written by a process of their own."""

import subprocess
import sys
from pathlib import Path

SIZES = {"train": 30, "test": 20}  # images

BUILDER = """
import io, sys
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


class {class_name}(tfds.core.GeneratorBasedBuilder):
    name = "{name}"
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {{"image": tfds.features.Image(shape={shape}), "label": tfds.features.{label}}}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True,
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {{"train": self._generate_examples(30), "test": self._generate_examples(20)}}

    def _generate_examples(self, count):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 8, 6, 3), np.uint8)
        for i in range(count):
            png = io.BytesIO()
            Image.fromarray(pixels[i]).save(png, "PNG")
            png.seek(0)
            yield i, {{"image": png, "label": i % 3}}

"""
PREPARE = '{class_name}(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()\n'


def builder_code(name, shape=(8, 6, 3), label='ClassLabel(names=["disc", "square", "star"])', prepare_now=True) -> str:
    """Python that defines a builder of 30 and 20 random images, and runs it into sys.argv[1]."""
    code = BUILDER + PREPARE if prepare_now else BUILDER
    return code.format(class_name=name.title().replace("_", ""), name=name, shape=shape, label=label)


def prepare(folder: Path, name: str = "tiny_shapes", **features) -> Path:
    """Prepares a set that this process has no builder of, as a user may have one; returns `folder`."""
    script = builder_code(name, **features)
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, capture_output=True)
    return folder
