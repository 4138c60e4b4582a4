"""A TFDS data set of JPEGs that cost a decoder what photographs cost: about 500x375 pixels and 110 KB.

    uv run python -m benchmarks.photos DIR [--count 2000]

Shaded shapes in colour over 1/f backgrounds (natural images' spectra fall so: Field 1987), each
with fine texture; ten classes by the colour of the largest shape. Every image is a function of its
number. DIR/photos/1.0.0 is read by `--dataset photos --data-dir DIR`; --folder writes DIR/CLASS/*.jpg
instead, for loaders that know no TFDS.
"""

import argparse
import colorsys
import contextlib
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

CLASSES = ("red", "orange", "yellow", "green", "mint", "cyan", "blue", "violet", "pink", "rose")
SIZES = ((375, 500), (375, 500), (375, 500), (333, 500), (500, 375), (400, 500))  # (H, W), as ImageNet's are
QUALITY = 95


@cache
def _fields(slope: float) -> np.ndarray:
    """Eight (768, 768) random fields, their amplitude spectrum falling as f**-slope, unit variance."""
    rng = np.random.default_rng(round(100 * slope))
    f = np.hypot(np.fft.fftfreq(768)[:, None], np.fft.rfftfreq(768)[None])
    f[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((8, 768, 768))) * f**-slope
    spectrum[:, 0, 0] = 0
    fields = np.fft.irfft2(spectrum, s=(768, 768))
    return (fields / fields.std((1, 2), keepdims=True)).astype(np.float32)


def _texture(rng: np.random.Generator, slope: float, height: int, width: int) -> np.ndarray:
    top, left = rng.integers(0, 768 - height), rng.integers(0, 768 - width)
    return _fields(slope)[rng.integers(8), top : top + height, left : left + width]


def photo(index: int) -> tuple[bytes, int]:
    """JPEG number `index` and its class."""
    rng = np.random.default_rng(index)
    height, width = SIZES[rng.integers(len(SIZES))]
    label = int(rng.integers(len(CLASSES)))

    def color(hue: float) -> np.ndarray:
        return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.25, 0.8), rng.uniform(0.35, 0.95)))

    def surface(hue: float) -> np.ndarray:
        """A colour under uneven light, with grain."""
        light = (
            1 + 0.25 * _texture(rng, 2.0, height, width) + rng.uniform(0.08, 0.2) * _texture(rng, 0.9, height, width)
        )
        tint = 8 * np.stack([_texture(rng, 1.6, height, width) for _ in range(3)], -1)
        return color(hue) * light[:, :, None] + tint

    picture = surface(rng.uniform())
    shapes = int(rng.integers(6, 14))
    for number in range(shapes):
        last = number == shapes - 1
        reach = rng.uniform(0.25, 0.4) if last else rng.uniform(0.03, 0.25)
        center = rng.uniform(0.3, 0.7, 2) if last else rng.uniform(0, 1, 2)
        corners = int(rng.integers(3, 9)) if rng.uniform() < 0.6 else 40
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if corners < 40 else np.linspace(0, 2 * np.pi, corners)
        outline = center * (width, height) + reach * max(height, width) * np.stack([np.cos(angles), np.sin(angles)], -1)
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).polygon([tuple(point) for point in outline.tolist()], fill=255)
        soft = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3)))
        alpha = np.asarray(soft, np.float32)[:, :, None] / 255
        picture = picture * (1 - alpha) + surface(label / len(CLASSES) if last else rng.uniform()) * alpha
    jpeg = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=QUALITY)
    return jpeg.getvalue(), label


def prepare(folder: Path, count: int) -> None:
    """Writes the TFDS data set photos/1.0.0 into `folder` as ArrayRecord files: `count` to train, a tenth to test."""
    import tensorflow_datasets as tfds

    class Photos(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image, label = tfds.features.Image(encoding_format="jpeg"), tfds.features.ClassLabel(names=list(CLASSES))
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

        def _split_generators(self, dl_manager):
            del dl_manager
            return {
                "train": self._generate_examples(0, count),
                "test": self._generate_examples(count, count + count // 10),
            }

        def _generate_examples(self, start: int, stop: int):
            for index in tqdm(range(start, stop), "photos", disable=None):
                jpeg, label = photo(index)
                yield index, {"image": io.BytesIO(jpeg), "label": label}

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        Photos(data_dir=folder, file_format="array_record").download_and_prepare()


def write_folder(folder: Path, count: int) -> None:
    """Writes the same training images as folder/CLASS/NUMBER.jpg."""
    for index in tqdm(range(count), "photos", disable=None):
        jpeg, label = photo(index)
        path = folder / CLASSES[label] / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--folder", action="store_true")
    options = parser.parse_args()
    (write_folder if options.folder else prepare)(options.dir, options.count)
