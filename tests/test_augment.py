import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.augment import fit, make_preprocess, normalize, random_affine

DIGIT = np.zeros((1, 32, 32, 1), np.uint8)
DIGIT[0, 8:24, 10:20, 0] = np.random.default_rng(0).integers(50, 256, (16, 10))


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


def test_normalize_is_the_formula():
    images = np.array([0, 127, 255], np.uint8).reshape(1, 1, 1, 3)
    expected = (np.array([0, 127, 255]) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    np.testing.assert_allclose(normalize(images, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))[0, 0, 0], expected, rtol=1e-6)


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


@pytest.mark.parametrize("rotate", [0, 30])
def test_preprocess_is_fit_then_distortion_then_normalize(rotate):
    images, key = DIGIT[:, 4:28, 4:28], jax.random.key(0)
    amounts = {"rotate": rotate, "translate": 0.0, "scale": 0.0, "shear": 0.0}
    preprocess = make_preprocess((32, 32), (0.1,), (0.3,), amounts)
    np.testing.assert_allclose(preprocess(images, None), normalize(DIGIT, (0.1,), (0.3,)), rtol=1e-6)
    expected = random_affine(key, DIGIT, rotate=rotate) if rotate else DIGIT
    np.testing.assert_allclose(preprocess(images, key), normalize(expected, (0.1,), (0.3,)), rtol=1e-5)


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


@pytest.mark.parametrize("channels", [1, 3])
def test_it_runs_inside_jit_and_keeps_the_shape(channels):
    images = jnp.zeros((2, 20, 24, channels), jnp.uint8)
    assert jax.jit(lambda key: random_affine(key, images, rotate=5))(jax.random.key(0)).shape == images.shape
