"""ImageNet in small: pieces of the photographs in tests/photos, in tars like its own, prepared as it is."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from raw_sets import write_tar

from cnn_jax.data.imagenet import NAMES
from cnn_jax.data.prepare import prepare

PHOTOS = [Path(__file__).parent / "photos" / f"{name}.jpg" for name in ("landscape", "portrait", "square", "turned")]
SIZES = {"train": 240, "validation": 60}  # images
WNIDS = tuple(NAMES)[::10]  # classes that have training images


def pieces(count: int, seed: int) -> list[bytes]:
    """JPEGs of many sizes and ratios: random parts of the photographs, as large or up to twice as small or large."""
    rng, made = np.random.default_rng(seed), []
    photos = [Image.open(path) for path in PHOTOS]
    for number in range(count):
        photo = photos[number % len(photos)]
        width, height = (int(side * rng.uniform(0.5, 1)) for side in photo.size)
        left, top = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
        size = tuple(int(side * 2 ** rng.uniform(-1, 1)) for side in (width, height))
        encoded = io.BytesIO()
        photo.crop((left, top, left + width, top + height)).resize(size).save(encoded, "JPEG", quality=90)
        made.append(encoded.getvalue())
    return made


def write(folder: Path) -> None:
    """`folder`/imagenet2012, as `cnn-jax prepare` makes it of the tars."""
    classes: dict[str, dict[str, bytes]] = {}
    for number, jpeg in enumerate(pieces(SIZES["train"], seed=0)):
        name = WNIDS[number % len(WNIDS)]
        classes.setdefault(name, {})[f"{name}_{number}.JPEG"] = jpeg
    raw = folder / "raw"
    inner = {f"{name}.tar": write_tar(raw / "one.tar", files).read_bytes() for name, files in classes.items()}
    write_tar(raw / "ILSVRC2012_img_train.tar", inner)
    validation = {f"ILSVRC2012_val_{n:08}.JPEG": jpeg for n, jpeg in enumerate(pieces(SIZES["validation"], seed=1), 1)}
    write_tar(raw / "ILSVRC2012_img_val.tar", validation)
    prepare("imagenet2012", folder, raw)
