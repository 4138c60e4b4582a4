import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from quick_jit import quick_jit
from scipy import ndimage, stats

from cnn_jax.data.augment import geometry
from cnn_jax.data.augment.geometry import fit
from cnn_jax.errors import UserError

DIGIT = np.zeros((1, 32, 32, 1), np.uint8)
DIGIT[0, 8:24, 10:20, 0] = np.random.default_rng(0).integers(50, 256, (16, 10))
COLOUR = np.random.default_rng(1).integers(0, 256, (1, 40, 48, 3), np.uint8)
KEY = jax.random.key(0)

crop_boxes = quick_jit(geometry.crop_boxes, static_argnums=(1, 2, 3, 4))
elastic = quick_jit(geometry.elastic)
flip = quick_jit(geometry.flip)
pad_crop = quick_jit(geometry.pad_crop, static_argnums=2)
random_affine = quick_jit(geometry.random_affine)
random_resized_crop = quick_jit(geometry.random_resized_crop, static_argnums=(2, 3, 4))
resample = quick_jit(geometry.resample, static_argnums=2)
scale_jitter = quick_jit(geometry.scale_jitter, static_argnums=(2, 3))


def test_smaller_images_get_a_black_frame():
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), np.uint8)
    fitted = fit(images, (32, 32))
    np.testing.assert_array_equal(fitted, np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))))
    assert fitted.dtype == np.uint8


def test_an_odd_frame_is_wider_behind():
    np.testing.assert_array_equal(
        fit(np.ones((1, 1, 2, 1), np.uint8), (4, 2))[0, :, :, 0], [[0, 0], [1, 1], [0, 0], [0, 0]]
    )


def test_larger_images_are_resized_as_pillow_does():
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 48, 3), np.uint8)
    pillow = Image.fromarray(images[0]).resize((32, 32), Image.Resampling.BILINEAR)
    difference = np.abs(np.asarray(fit(images, (32, 32)), int)[0] - np.asarray(pillow, int))
    assert difference.max() <= 1  # Pillow rounds between its two passes


def test_no_distortion_is_the_identity():
    np.testing.assert_allclose(random_affine(jax.random.key(0), DIGIT), DIGIT, atol=1e-3)


def test_a_key_decides_the_distortion_and_each_image_gets_its_own():
    images = np.repeat(DIGIT, 4, 0)
    distort = lambda key: np.asarray(random_affine(jax.random.key(key), images, rotate=20, translate=3))
    np.testing.assert_array_equal(distort(0), distort(0))
    assert not np.array_equal(distort(0), distort(1))
    assert not np.array_equal(distort(0)[0], distort(0)[1])


def centre(image):
    """Centre of mass (row, column) of (H, W, 1)."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = image[:, :, 0] / image.sum()
    return np.array([(rows * weight).sum(), (columns * weight).sum()])


def test_translation_moves_by_up_to_so_many_pixels():
    moved = np.asarray(random_affine(jax.random.key(0), np.repeat(DIGIT, 200, 0), translate=3))
    shifts = np.array([centre(image) - centre(DIGIT[0].astype(float)) for image in moved])
    assert np.abs(shifts).max() <= 3.01
    assert np.abs(shifts).max(0).min() > 2.7 and np.abs(shifts.mean(0)).max() < 0.5
    np.testing.assert_allclose(moved.sum((1, 2, 3)), DIGIT.sum(), rtol=1e-4)  # nothing left the frame


def test_translation_is_not_stretched_by_the_rest():
    disc = np.zeros((1, 41, 41, 1), np.float32)
    disc[0, 16:25, 16:25] = 255
    moved = np.asarray(random_affine(jax.random.key(0), np.repeat(disc, 200, 0), rotate=45, translate=5, scale=0.4))
    shifts = np.abs([centre(image) - 20 for image in moved])
    assert 4.5 < shifts.max() < 5.1


def test_rotation_matches_pillow():
    """A draw of one angle, undone: Pillow rotated by the same angle gives the same picture."""
    key = jax.random.key(3)
    angle = 30 * float(jax.random.uniform(key, (1, 6), minval=-1.0, maxval=1.0)[0, 0])
    ours = np.asarray(random_affine(key, DIGIT, rotate=30))[0, :, :, 0]
    smooth = Image.fromarray(DIGIT[0, :, :, 0].astype(np.float32))
    turned = [np.asarray(smooth.rotate(sign * angle, Image.Resampling.BILINEAR)) for sign in (1, -1)]
    errors = [np.abs(ours - t).mean() for t in turned]
    assert min(errors) < 0.05 * DIGIT.mean() < max(errors)


def test_scaling_keeps_the_centre_and_changes_the_area():
    disc = np.zeros((1, 33, 33, 1), np.float32)
    disc[0, 11:22, 11:22] = 255
    scaled = np.asarray(random_affine(jax.random.key(0), np.repeat(disc, 100, 0), scale=0.2))
    areas = scaled.sum((1, 2, 3)) / disc.sum()
    assert 0.6 < areas.min() < 0.8 and 1.2 < areas.max() < 1.5  # 0.8^2 .. 1.2^2
    np.testing.assert_allclose([centre(image) for image in scaled], np.full((100, 2), 16), atol=0.2)


def test_shear_slants_a_bar():
    bar = np.zeros((1, 33, 33, 1), np.float32)
    bar[0, :, 16] = 255
    slanted = np.asarray(random_affine(jax.random.key(1), np.repeat(bar, 50, 0), shear=0.3))
    columns = np.arange(33)
    tops, bottoms = ((slanted[:, row, :, 0] * columns).sum(1) / slanted[:, row, :, 0].sum(1) for row in (6, 26))
    assert np.abs(tops - bottoms).max() <= 0.3 * 20 + 0.1
    assert np.abs(tops - bottoms).max() > 4


def test_half_of_the_images_are_mirrored():
    flipped = flip(KEY, np.repeat(COLOUR, 200, 0))
    mirrored = (flipped == COLOUR[:, :, ::-1]).all((1, 2, 3))
    assert flipped.dtype == np.uint8 and 70 < mirrored.sum() < 130  # 100 +- 4 standard deviations
    np.testing.assert_array_equal(flipped[~mirrored], np.repeat(COLOUR, (~mirrored).sum(), 0))


def test_pad_and_crop_takes_every_place_in_the_frame_about_as_often():
    crops = np.asarray(pad_crop(KEY, np.repeat(COLOUR, 450, 0), 1))
    framed = np.pad(COLOUR[0], ((1, 1), (1, 1), (0, 0)))
    counts = [
        (crops == framed[row : row + 40, column : column + 48]).all((1, 2, 3)).sum() for row, column in np.ndindex(3, 3)
    ]
    assert sum(counts) == 450 and min(counts) > 25 and max(counts) < 80  # 50 +- 4 standard deviations


def boxes_by_loop(count, height, width, scale, ratio):
    """torchvision's RandomResizedCrop.get_params, in NumPy."""
    rng, boxes = np.random.default_rng(0), []
    while len(boxes) < count:
        for _ in range(10):
            area = height * width * rng.uniform(*scale)
            shape = np.exp(rng.uniform(*np.log(ratio)))
            w, h = round(np.sqrt(area * shape)), round(np.sqrt(area / shape))
            if 0 < w <= width and 0 < h <= height:
                boxes.append((rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w))
                break
    return np.array(boxes, float)


@pytest.mark.parametrize(
    ("size", "scale", "ratio"), [((100, 150), (0.08, 1.0), (3 / 4, 4 / 3)), ((64, 64), (0.02, 0.4), (0.3, 1 / 0.3))]
)
def test_crop_boxes_are_distributed_as_torchvisions(size, scale, ratio):
    ours = np.asarray(crop_boxes(KEY, 4000, size, scale, ratio))
    theirs = boxes_by_loop(4000, *size, scale, ratio)
    for figure in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0] / np.maximum(size[0] - box[:, 2], 1),
        lambda box: box[:, 1] / np.maximum(size[1] - box[:, 3], 1),
    ):
        assert stats.ks_2samp(figure(ours), figure(theirs)).pvalue > 0.001
    np.testing.assert_array_equal(ours, ours.round())
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= size).all()


def test_the_area_of_a_crop_box_is_uniform_where_every_box_fits():
    boxes = crop_boxes(KEY, 4000, (400, 400), (0.1, 0.5), (3 / 4, 4 / 3))
    areas = np.prod(boxes[:, 2:], 1) / 400**2
    assert stats.kstest(areas, stats.uniform(0.1, 0.4).cdf).pvalue > 0.001


@pytest.mark.parametrize(
    ("size", "box"),
    [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10)), ((10, 11), (0, 0, 10, 11))],
)
def test_where_no_box_fits_it_is_the_largest_central_one(size, box):
    """torchvision's fallback: at most 4 wide to 3 high, all of an image of an allowed ratio."""
    boxes = crop_boxes(KEY, 5, size, (1.5, 2.0), (3 / 4, 4 / 3))
    np.testing.assert_array_equal(boxes, np.repeat([box], 5, 0))


@pytest.mark.parametrize("box", [(0, 0, 40, 48), (3, 7, 30, 20), (5.25, 2.5, 12.5, 9.75), (1, 1, 39, 5)])
def test_a_box_is_resized_as_pillow_does(box):
    top, left, height, width = box
    ours = np.asarray(resample(COLOUR, jnp.array([box], jnp.float32), (16, 24)))[0]
    for channel in range(3):
        plane = Image.fromarray(COLOUR[0, :, :, channel].astype(np.float32))
        pillow = plane.resize((24, 16), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        np.testing.assert_allclose(ours[:, :, channel], pillow, atol=0.01)  # float32, both


def test_a_random_resized_crop_is_its_box_resized():
    images = np.repeat(COLOUR, 8, 0)
    boxes = crop_boxes(KEY, 8, (40, 48), (0.2, 0.9), (0.5, 2.0))
    crops = random_resized_crop(KEY, images, (20, 16), (0.2, 0.9), (0.5, 2.0))
    assert crops.shape == (8, 20, 16, 3) and len(np.unique(boxes, axis=0)) == 8
    np.testing.assert_allclose(crops, resample(images, boxes, (20, 16)), atol=1e-4)


def test_scale_jitter_draws_the_shorter_side_and_the_place_uniformly():
    """Of a ramp, a crop shows its scale by its slope and its place by its start."""
    ramp = np.stack(np.meshgrid(np.arange(60), np.arange(90), indexing="ij"), -1)[None].astype(np.float32)
    crops = np.asarray(scale_jitter(KEY, np.repeat(ramp, 500, 0), (64, 64), (70, 140)))
    slopes = (crops[:, 50, 50] - crops[:, 10, 10]) / 40
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=1e-3)
    sides = 60 / slopes[:, 0]
    assert stats.kstest(sides, stats.uniform(70, 70).cdf).pvalue > 0.001
    corners = crops[:, 10, 10] - 10.5 * slopes + 0.5
    shares = corners / (np.array([60, 90]) - 64 * slopes)
    for axis in (0, 1):
        assert stats.kstest(shares[:, axis], stats.uniform(-0.001, 1.002).cdf).pvalue > 0.001


def test_scale_jitter_of_the_crops_own_size_is_a_resize():
    square = COLOUR[:, :, :40]
    crop = scale_jitter(KEY, square, (24, 24), (24, 24))
    np.testing.assert_allclose(crop, resample(square, jnp.array([[0, 0, 40, 40]]), (24, 24)), atol=1e-3)


def test_scale_jitter_needs_room_for_the_crop():
    with pytest.raises(UserError, match="scale jitter to a shorter side of 20 pixels leaves no crop of 24x16"):
        scale_jitter(KEY, COLOUR, (24, 16), (20, 40))


def test_elastic_distortion_is_scipys():
    """Simard 2003 by scipy.ndimage: a Gaussian of uniform noise, times alpha, moves the pixels bilinearly."""
    noise = np.asarray(jax.random.uniform(KEY, (1, 2, 40, 48), minval=-1.0, maxval=1.0))[0]
    field = 20 * np.stack([ndimage.gaussian_filter(n, 3, mode="constant", truncate=9) for n in noise])
    ours = elastic(KEY, COLOUR, 20, 3)
    for channel in range(3):
        moved = ndimage.map_coordinates(COLOUR[0, :, :, channel].astype(float), np.mgrid[:40, :48] + field, order=1)
        off = np.abs(np.asarray(ours)[0, :, :, channel] - moved)
        # scipy drops what lies between the last pixel and the black outside; ours fades.
        inside = (
            (np.mgrid[:40, :48] + field >= 0) & (np.mgrid[:40, :48] + field <= np.array([39, 47])[:, None, None])
        ).all(0)
        assert off[inside].max() < 0.05 and inside.mean() > 0.9


def test_simards_amounts_move_the_middle_of_a_digit_by_about_1_4_pixels():
    ramp = np.stack(np.meshgrid(np.arange(29), np.arange(29), indexing="ij"), -1)[None].astype(np.float32)
    moved = np.asarray(elastic(KEY, np.repeat(ramp, 300, 0)))[:, 10:19, 10:19] - ramp[:, 10:19, 10:19]
    np.testing.assert_allclose(moved.std(), 1.38, atol=0.08)  # 34 * (1 / sqrt(3)) / (2 * sqrt(pi) * 4)
