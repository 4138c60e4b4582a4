import io

import cv2
import numpy as np
import pytest
import simplejpeg
from odd_images import BAD, GOOD, JPEG
from PIL import Image

from cnn_jax.data.crops import crop, decode_rows, random_resized_box, scale_jitter_box
from cnn_jax.data.decode import BadImage, decode, jpeg_size

RNG = np.random.default_rng(0)
SUBSAMPLINGS = ("444", "422", "420", "440", "411", "Gray")


def jpeg_of(height, width, subsampling):
    walk = np.cumsum(RNG.standard_normal((height, width, 3)), 0)
    pixels = np.clip(128 + 12 * walk, 0, 255).astype(np.uint8)
    if subsampling == "Gray":
        return simplejpeg.encode_jpeg(pixels[:, :, :1].copy(), colorspace="GRAY", colorsubsampling="Gray")
    return simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling=subsampling)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size", [(375, 500), (33, 17), (64, 64), (121, 77), (1, 1), (200, 3)])
def test_the_upper_rows_alone_are_the_upper_rows_of_the_whole(subsampling, size):
    data = jpeg_of(*size, subsampling)
    for channels in (3, 1):
        whole = decode(data, channels)
        for bottom in {1, size[0], *RNG.integers(1, size[0] + 1, 6).tolist()}:
            rows = decode_rows(data, channels, size, bottom)
            assert len(rows) >= bottom
            np.testing.assert_array_equal(rows[:bottom], whole[:bottom])


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("size", [(375, 500), (33, 17), (121, 77)])
def test_scaled_rows_are_those_of_the_scaled_whole(shrink, size):
    data = jpeg_of(*size, "420")
    scaled = simplejpeg.decode_jpeg(data, min_height=-(-size[0] // shrink), min_width=-(-size[1] // shrink))
    rows = decode_rows(data, 3, size, size[0] // 2, shrink)
    known = size[0] // 2 // shrink
    assert rows.shape[1:] == (-(-size[1] // shrink), 3) and len(rows) >= known
    np.testing.assert_array_equal(rows[:known], scaled[:known])


def test_progressive_files_are_decoded_whole():
    data = GOOD["progressive.jpg"][0]
    np.testing.assert_array_equal(decode_rows(data, 3, (40, 60), 5), decode(data, 3))


@pytest.mark.parametrize("name", [name for name in BAD if name.endswith(".jpg")])
def test_bad_files_are_told_whatever_the_crop(name):
    data, message = BAD[name]
    for rows in (3, 40):
        with pytest.raises(BadImage, match=message):
            crop(data, 3, 8, lambda height, width, rows=rows: (0, 0, min(rows, height), min(4, width)))


def test_damage_is_found_as_in_the_whole_where_no_rows_are_left_out():
    found = 0
    for _ in range(200):
        data = bytearray(jpeg_of(96, 96, "420"))
        at = int(RNG.integers(700, len(data) - 10))
        data[at : at + 8] = RNG.bytes(8)
        verdicts = []
        for function in (lambda: decode(bytes(data), 3), lambda: decode_rows(bytes(data), 3, (96, 96), 80)):  # noqa: B023
            try:
                function()
                verdicts.append("good")
            except BadImage:
                verdicts.append("bad")
        assert verdicts[0] == verdicts[1]
        found += verdicts[0] == "bad"
    assert found > 0


def test_a_crop_is_the_box_resized():
    data = jpeg_of(121, 77, "420")
    box = (30, 11, 60, 50)
    part = decode(data, 3)[30:90, 11:61]
    wanted = cv2.resize(part, (48, 48), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(crop(data, 3, 48, lambda *_: box), wanted)
    np.testing.assert_array_equal(crop(decode(data, 3), 3, 48, lambda *_: box), wanted)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [16, 40, 100])
def test_large_images_shrink_without_aliases(kind, size):
    """Against Pillow's antialiased resize; a sine of three pixels' period would show aliases."""
    y, x = np.mgrid[0:700, 0:900]
    pixels = (127 + 60 * np.sin(x / 40) + 60 * np.sin(2 * np.pi * y / 3)).clip(0, 255).astype(np.uint8)
    pixels = np.repeat(pixels[:, :, None], 3, 2)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, quality=95)
    found = crop(out.getvalue(), 3, size, lambda *_: (50, 100, 600, 600))
    wanted = Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX, box=(100, 50, 700, 650))
    assert np.abs(found.astype(int) - np.asarray(wanted)).mean() < 6


def test_one_pixel_and_one_row_can_be_cropped():
    for name in ("one_pixel.png", "one_pixel.jpg", "one_row.png"):
        data = GOOD[name][0]
        for _ in range(20):
            found = crop(data, 3, 8, lambda height, width: random_resized_box(RNG, height, width))
            assert found.shape == (8, 8, 3)


def test_random_resized_boxes_are_distributed_as_torchvisions():
    """Inside, areas within the range and uniform where every box fits, ratios within 3/4 to 4/3."""
    boxes = np.array([random_resized_box(RNG, 1000, 1000, (0.08, 0.5)) for _ in range(4000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 1000).all() and (left + width <= 1000).all()
    area, ratio = height * width / 1e6, width / height
    assert area.min() > 0.079 and area.max() < 0.501 and ratio.min() > 0.74 and ratio.max() < 1.35
    quartiles = np.quantile(area, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.185, 0.29, 0.395], atol=0.02)  # 4,000 draws
    np.testing.assert_allclose(np.mean(np.log(ratio)), 0, atol=0.02)


def test_a_box_that_never_fits_is_the_largest_central_one():
    assert random_resized_box(RNG, 10, 1000, (0.9, 1.0)) == (0, 493, 10, 13)
    assert random_resized_box(RNG, 1000, 10, (0.9, 1.0)) == (493, 0, 13, 10)


def test_scale_jitter_takes_the_square_that_a_resize_would_leave():
    sides = [scale_jitter_box(RNG, 375, 500, 224, (256, 512))[2] for _ in range(3000)]
    assert max(sides) == round(224 * 375 / 256) and min(sides) == round(224 * 375 / 512)
    top, left, height, width = scale_jitter_box(RNG, 100, 300, 224, (224, 224))
    assert (top, height, width) == (0, 100, 100) and 0 <= left <= 200


def test_size_and_frame_header_are_of_the_same_file():
    assert jpeg_size(JPEG) == (40, 60)
    assert decode_rows(JPEG, 3, (40, 60), 10).shape[0] == 26
