from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from quick_jit import quick_jit

from cnn_jax.data.augment import policies
from cnn_jax.errors import UserError

KEY = jax.random.key(0)
rows, columns = np.mgrid[:24, :30]
NOISE = np.random.default_rng(0).normal(0, 25, (24, 30, 3))
PHOTO = np.clip(np.stack([6 * rows + 40, 5 * columns + 20, 90 + 3 * (rows - columns)], -1) + NOISE, 3, 240).astype(
    np.uint8
)
TWO_VALUES = np.where(PHOTO > 120, 200, 60).astype(np.uint8)
ONE_VALUE = np.full_like(PHOTO, 77)

operate = quick_jit(policies.operate)
randaugment = quick_jit(policies.randaugment, static_argnums=2)
autoaugment = quick_jit(policies.autoaugment)


def warp(image, *matrix):
    grey = 128 if image.mode == "L" else (128, 128, 128)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=grey)


def turned(image, degrees):
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=128 if image.mode == "L" else (128, 128, 128))


# tensorflow/models, research/autoaugment/augmentation_transforms.py: the operations as the papers' authors call Pillow.
PILLOW = {
    "Identity": lambda image, value: image,
    "ShearX": lambda image, value: warp(image, 1, value, 0, 0, 1, 0),
    "ShearY": lambda image, value: warp(image, 1, 0, 0, value, 1, 0),
    "TranslateX": lambda image, value: warp(image, 1, 0, value * image.width, 0, 1, 0),
    "TranslateY": lambda image, value: warp(image, 1, 0, 0, 0, 1, value * image.height),
    "Rotate": turned,
    "AutoContrast": lambda image, value: ImageOps.autocontrast(image),
    "Invert": lambda image, value: ImageOps.invert(image),
    "Equalize": lambda image, value: ImageOps.equalize(image),
    "Solarize": lambda image, value: ImageOps.solarize(image, int(value)),
    "Posterize": lambda image, value: ImageOps.posterize(image, min(8, int(value))),
    "Contrast": lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    "Color": lambda image, value: ImageEnhance.Color(image).enhance(value),
    "Brightness": lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    "Sharpness": lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
}
# Cubuk 2018, its list of operations: magnitude 0 and 10 of each.
RANGES = {
    **dict.fromkeys(("ShearX", "ShearY"), (0, 0.3)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (0, 150 / 331)),
    **dict.fromkeys(("Contrast", "Color", "Brightness", "Sharpness"), (0.1, 1.9)),
    "Rotate": (0, 30),
    "Solarize": (0, 256),
    "Posterize": (4, 8),
}
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def pillow(name, image, value):
    """(H, W, 1 or 3) uint8 through Pillow."""
    done = PILLOW[name](Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image), value)
    return np.asarray(done).reshape(image.shape).astype(int)


def values_of(name, magnitude):
    """What an operation may be given for a magnitude: one value, or one either way."""
    low, high = RANGES.get(name, (0, 0))
    value = low + (high - low) * magnitude / 10
    return (value, -value) if name in SIGNED else (value,)


def difference(ours, theirs):
    """The largest difference in value, and the share of pixels that differ by more than one."""
    off = np.abs(np.asarray(ours, int) - theirs)
    return off.max(), (off > 1).mean()


@pytest.mark.parametrize("name", PILLOW)
def test_every_operation_is_pillows(name):
    values = [value for magnitude in (0, 2, 5, 9, 10, 30) for value in values_of(name, magnitude)]
    images = [PHOTO, TWO_VALUES, ONE_VALUE, PHOTO[..., :1]]
    for image, value in product(images, values):
        batch = np.zeros((1, 24, 30, image.shape[-1]), np.uint8) + image
        ours = operate(batch, jnp.array([policies.PLACE[name]]), jnp.array([value], jnp.float32))[0]
        most, share = difference(ours, pillow(name, image, value))
        if name in SIGNED:  # where the middle of a pixel falls between two, Pillow's fixed point may take the other
            assert share < 0.01
        else:
            assert most <= 1, value  # float32 against float64, cut off to whole values


def test_the_operations_and_ranges_are_the_papers():
    assert set(policies.OPERATIONS) == set(PILLOW) and len(policies.RANDAUGMENT) == 14
    for name, (low, high, signed) in policies.OPERATIONS.items():
        assert (low, high) == RANGES.get(name, (0, 0)) and signed == (name in SIGNED)


def closest(images, candidates):
    """For each image the nearest candidate, and the share of its pixels that are off by more than 2."""
    off = np.abs(np.asarray(images, np.int16)[:, None] - candidates)
    nearest = off.mean((2, 3, 4)).argmin(1)
    return nearest, (off[np.arange(len(nearest)), nearest] > 2).mean((1, 2, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_is_one_of_fourteen_operations_at_its_magnitude(channels):
    image = PHOTO[..., :channels]
    drawable = [name for name in PILLOW if name != "Invert" and (channels, name) != (1, "Color")]  # grey has no colour
    made = [(name, pillow(name, image, value)) for name in drawable for value in values_of(name, 3.7)]
    nearest, off = closest(randaugment(KEY, np.repeat(image[None], 300, 0), 1, 3.7), np.array([m for _, m in made]))
    assert off.max() < 0.02
    counts = {name: sum(made[i][0] == name for i in nearest) for name in drawable}
    if channels == 1:
        counts["Identity"] -= 300 / 14
    assert all(4 < count < 39 for count in counts.values()), counts  # 21 +- 4 standard deviations
    assert len(set(nearest)) == len(made)  # either way


def test_randaugment_applies_two_operations_of_its_own_to_each_image():
    images = np.repeat(PHOTO[None], 60, 0)
    twice = np.asarray(randaugment(KEY, images, 2))
    assert len({image.tobytes() for image in twice}) > 40
    assert twice.min() >= 0 and twice.max() <= 255 and (twice == twice.round()).all()


def test_autoaugment_is_one_of_the_papers_25_pairs():
    made = []
    for pair in policies.IMAGENET_POLICY:
        for on in product((False, True), repeat=2):
            steps = [
                [(name, v) for v in values_of(name, m)] if go else [("Identity", 0)]
                for go, (name, _, m) in zip(on, pair, strict=True)
            ]
            for (first, a), (second, b) in product(*steps):
                made.append(pillow(second, pillow(first, PHOTO, a).astype(np.uint8), b))
    nearest, off = closest(autoaugment(KEY, np.repeat(PHOTO[None], 150, 0)), np.array(made, np.int16))
    assert off.max() < 0.03 and len(set(nearest)) > 25


def test_each_operation_of_a_pair_has_its_probability(monkeypatch):
    monkeypatch.setattr(policies, "IMAGENET_POLICY", ((("Invert", 0.3, 0), ("Brightness", 0.8, 0)),))
    images = quick_jit(policies.autoaugment)(KEY, np.full((1000, 1, 1, 1), 55, np.uint8))
    counts = {int(value): int(count) for value, count in zip(*np.unique(images, return_counts=True), strict=True)}
    expected = {55: 140, 200: 60, 5: 560, 20: 240}  # neither, the first, the second (a tenth of the light), both
    assert counts.keys() == expected.keys()
    assert all(abs(counts[value] - expected[value]) < 65 for value in expected)  # 4 standard deviations


def test_policies_work_on_whole_values():
    images = np.array([-3, 0.4, 0.6, 254.6, 300]).reshape(1, 1, 5, 1)
    np.testing.assert_array_equal(policies.whole(images).ravel(), [0, 0, 1, 255, 255])


def test_policies_need_grey_or_colour():
    with pytest.raises(UserError, match="policies need images of 1 or 3 channels, not 4"):
        randaugment(KEY, np.zeros((1, 4, 4, 4)), 2)
