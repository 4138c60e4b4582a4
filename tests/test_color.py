import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_jit

from cnn_jax.data.augment import color
from cnn_jax.errors import UserError

KEY = jax.random.key(0)
PHOTO = np.random.default_rng(0).integers(0, 256, (1, 12, 10, 3), np.uint8)

pca_color = quick_jit(color.pca_color)
color_distortion = quick_jit(color.color_distortion)


def test_pca_colour_shifts_a_whole_image_by_one_colour():
    shifts = np.asarray(pca_color(KEY, np.repeat(PHOTO, 6, 0))) - PHOTO
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1, :1], shifts.shape), atol=1e-4)
    assert len(np.unique(shifts[:, 0, 0].round(3), axis=0)) == 6


def test_pca_colour_has_the_covariance_of_imagenets_components():
    """In [0, 255] the eigenvalues are 55.46, 4.794 and 1.148 (as MXNet has them); alpha's deviation is 0.1."""
    shifts = np.asarray(pca_color(KEY, np.zeros((40_000, 1, 1, 3), np.uint8)))[:, 0, 0]
    vectors = np.array([[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=2e-4)
    along = shifts @ vectors.T
    np.testing.assert_allclose(along.std(0), 0.1 * np.array([55.46, 4.794, 1.148]), rtol=0.02)  # 4 / sqrt(2 n)
    np.testing.assert_allclose(np.corrcoef(along.T), np.eye(3), atol=0.025)
    np.testing.assert_allclose(along.mean(0), 0, atol=0.12)


def with_hsv(image, change):
    """colorsys on every pixel of an image in [0, 255]."""
    pixels = [
        colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(p / 255)))) for p in image.reshape(-1, 3).astype(float)
    ]
    return 255 * np.array(pixels).reshape(image.shape)


ORACLES = {
    "brightness": lambda image, amount: image + amount,
    "saturation": lambda image, amount: with_hsv(image, lambda h, s, v: (h, min(1.0, s * amount), v)),
    "hue": lambda image, amount: with_hsv(image, lambda h, s, v: ((h + amount) % 1, s, v)),
    "contrast": lambda image, amount: (image - image.mean((0, 1))) * amount + image.mean((0, 1)),
}


@pytest.mark.parametrize(
    ("name", "amounts"),
    [
        ("brightness", (-32.0, 0.0, 32.0)),
        ("saturation", (0.5, 1.0, 1.5)),
        ("hue", (-0.2, 0.0, 0.07, 0.2)),
        ("contrast", (0.5, 1.0, 1.5)),
    ],
)
def test_each_step_of_inceptions_distortion_is_its_definition(name, amounts):
    image = PHOTO[0].astype(np.float32)
    image[0], image[1, :5], image[1, 5:] = 0, 255, image[1, 5:, :1]  # black, white, grey
    image[2] = image[2, :, [1, 1, 0]].T  # two equal channels
    for amount in amounts:
        np.testing.assert_allclose(color.STEPS[name](image, amount), ORACLES[name](image, amount), atol=2e-3)


def test_hue_and_saturation_of_colours_beyond_the_range_keep_the_brightest_channel():
    """A step before may leave [0, 255]; TensorFlow's HSV then cuts the saturation off at 1."""
    image = jnp.array([[[-20.0, 100, 300], [-30, -20, -10]]])
    np.testing.assert_allclose(color.saturation(image, 1.0), [[[0, 112.5, 300], [-10, -10, -10]]], atol=1e-3)
    turned = color.hue(image, 0.13)
    np.testing.assert_allclose([turned.max(-1), turned.min(-1)], [image.max(-1), image.min(-1)], atol=1e-3)


def test_inceptions_distortion_is_one_of_its_four_orders(monkeypatch):
    """TensorFlow's slim, inception_preprocessing.py, distort_color; with amounts that do not vary."""
    amounts = {"brightness": 30.0, "saturation": 1.4, "hue": 0.15, "contrast": 1.15}
    monkeypatch.setattr(color, "AMOUNTS", {name: (amount, amount) for name, amount in amounts.items()})
    image = 10 + PHOTO // 3  # stays in range, so that colorsys can follow, and is dark, so that saturations reach 1
    orders = (
        ("brightness", "saturation", "hue", "contrast"),
        ("saturation", "brightness", "contrast", "hue"),
        ("contrast", "hue", "brightness", "saturation"),
        ("hue", "saturation", "contrast", "brightness"),
    )
    expected = []
    for order in orders:
        out = image[0].astype(float)
        for name in order:
            out = ORACLES[name](out, amounts[name])
        expected.append(np.clip(out, 0, 255))
    distorted = np.asarray(color.color_distortion(KEY, np.repeat(image, 40, 0)))
    errors = np.abs(distorted[:, None] - np.array(expected)).max((2, 3, 4))
    assert errors.min(1).max() < 0.01 and set(errors.argmin(1)) == {0, 1, 2, 3}


def test_the_amounts_of_inceptions_distortion_are_tensorflows():
    assert color.AMOUNTS == {
        "brightness": (-32, 32),
        "saturation": (0.5, 1.5),
        "hue": (-0.2, 0.2),
        "contrast": (0.5, 1.5),
    }


def test_grey_images_change_in_brightness_and_contrast_alone():
    grey = PHOTO[..., :1]
    ours = np.asarray(color_distortion(KEY, grey))
    centred = grey - grey.mean()
    slope = (ours * centred).sum() / (centred**2).sum()
    unclipped = (ours > 0) & (ours < 255)
    line = np.polyfit(grey[unclipped].astype(float), ours[unclipped], 1)
    np.testing.assert_allclose(np.polyval(line, grey[unclipped]), ours[unclipped], atol=0.01)
    assert 0.4 < slope < 1.6
    spread = np.asarray(color_distortion(KEY, np.repeat(PHOTO[..., :1], 3, -1)))
    np.testing.assert_allclose(spread, np.repeat(ours, 3, -1), atol=0.01)  # grey stays grey


def test_distortions_of_colour_need_channels_of_colour():
    with pytest.raises(UserError, match="PCA colour needs images of 3 channels, not 1"):
        pca_color(KEY, PHOTO[..., :1])
    with pytest.raises(UserError, match="colour distortion needs images of 1 or 3 channels, not 2"):
        color_distortion(KEY, PHOTO[..., :2])
