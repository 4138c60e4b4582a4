import io

import numpy as np
import pytest
from odd_images import BAD, GOOD, JPEG, PIXELS, PNG, expected
from PIL import Image

from cnn_jax.data.decode import BadImage, center, center_crop, decode, jpeg_size, resize_shorter


@pytest.mark.parametrize("name", GOOD)
def test_odd_files_become_rgb_pixels(name):
    data, wanted, tolerance = GOOD[name]
    pixels = decode(data, 3)
    assert pixels.dtype == np.uint8 and pixels.shape == expected(wanted).shape
    assert np.abs(pixels.astype(int) - expected(wanted)).max() <= tolerance


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_in_one_line(name):
    data, message = BAD[name]
    with pytest.raises(BadImage, match=message) as error:
        decode(data, 3)
    assert "\n" not in str(error.value) and "object at 0x" not in str(error.value)


@pytest.mark.parametrize("name", GOOD)
def test_one_channel_is_luma(name):
    data, wanted, tolerance = GOOD[name]
    grey = decode(data, 1)
    luma = expected(wanted) @ np.array([0.299, 0.587, 0.114])
    assert grey.shape == (*luma.shape, 1)
    assert np.abs(grey[:, :, 0] - luma).max() <= tolerance + 1


def test_pixels_pass_as_they_are_or_change_channels():
    assert decode(PIXELS, 3) is PIXELS
    np.testing.assert_array_equal(decode(PIXELS[:, :, :1], 3), np.repeat(PIXELS[:, :, :1], 3, 2))
    by_pillow = np.asarray(Image.fromarray(PIXELS).convert("L"))
    assert np.abs(decode(PIXELS, 1)[:, :, 0].astype(int) - by_pillow).max() <= 1


def test_the_size_of_a_jpeg_is_known_without_decoding():
    assert jpeg_size(JPEG) == (40, 60)
    assert jpeg_size(PNG) is None and jpeg_size(PIXELS) is None
    assert jpeg_size(GOOD["cmyk.jpg"][0]) is None  # not one that libjpeg-turbo turns into RGB


@pytest.mark.parametrize(("size", "crop"), [(224, 0.875), (32, 0.875), (30, 1.0), (299, 0.9)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_centre_crop_is_torchvisions(size, crop, interpolation):
    """Resize(floor(size / crop)) and CenterCrop(size) as torchvision's source computes them."""
    noise = np.random.default_rng(0).integers(0, 256, (47, 71, 3), np.uint8)
    shorter = int(size / crop)
    longer = int(shorter * 71 / 47)
    whole = Image.fromarray(noise).resize((longer, shorter), getattr(Image.Resampling, interpolation.upper()))
    top, left = int(round((shorter - size) / 2.0)), int(round((longer - size) / 2.0))  # noqa: RUF046
    wanted = np.asarray(whole.crop((left, top, left + size, top + size)))
    np.testing.assert_array_equal(center_crop(noise, 3, size, crop, interpolation), wanted)


def test_resizing_keeps_the_shape_of_the_image():
    assert resize_shorter(PIXELS, 20).shape == (20, 30, 3)
    assert resize_shorter(PIXELS.transpose(1, 0, 2), 20).shape == (30, 20, 3)
    assert resize_shorter(PIXELS[:, :, :1], 80).shape == (80, 120, 1)
    assert center(PIXELS, 10, 12).shape == (10, 12, 3)


@pytest.mark.parametrize("name", ["plain.jpg", "cmyk.jpg", "palette.png", "sixteen_bits.png", "grey_and_alpha.png"])
def test_what_pillow_has_opened_becomes_the_pixels_of_its_file(name):
    data = GOOD[name][0]
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(decode(opened, 3), decode(data, 3))
        assert decode(opened, 1).shape == (*decode(data, 3).shape[:2], 1)


def test_a_damaged_file_that_pillow_has_opened_is_told():
    with pytest.raises(BadImage, match="is no readable image"):
        decode(Image.open(io.BytesIO(PNG[: len(PNG) // 2])), 3)


def test_alpha_of_pixels_is_dropped():
    alpha = np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)])
    np.testing.assert_array_equal(decode(alpha, 3), PIXELS)


def test_the_middle_of_a_smaller_image_has_a_black_frame():
    """torchvision's CenterCrop: of an odd frame the larger part is below and to the right."""
    found = center(PIXELS[:, :7], 45, 10)
    np.testing.assert_array_equal(found[2:42, 1:8], PIXELS[:, :7])
    assert found.shape == (45, 10, 3) and found.sum() == PIXELS[:, :7].sum()
    np.testing.assert_array_equal(center(PIXELS, 50, 20)[5:45], PIXELS[:, 20:40])  # framed one way, cut the other
