"""Covered pixels: against Captum, and against networks of which one knows what they look at."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from small_cnn import TARGETS, SmallCNN, attributions, small_images, small_variables

from cnn_jax import UserError
from cnn_jax.visualize import deletion, insertion, occlusion
from cnn_jax.visualize.perturbations import _blurred

NET, VARIABLES, IMAGES = SmallCNN(), small_variables(), jnp.asarray(small_images())


class Corner(nn.Module):
    """Sees the first pixel alone: its logits are (12, 0) where that is 1, (-12, 0) where it is 0."""

    num_classes: int = 2

    @nn.compact
    def __call__(self, x, *, train):
        first = 24 * x[:, 0, 0, 0] - 12
        return jnp.stack([first, jnp.zeros_like(first)], axis=1)


def test_occlusion_is_captums():
    """Windows of 7 moved by 5 over 24 pixels, of which the last are cut at the edge."""
    found, expected = occlusion(NET, VARIABLES, IMAGES, TARGETS, window=7, stride=5), attributions()["occlusion"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_occlusion_falls_on_what_is_looked_at_alone():
    found = occlusion(Corner(), {}, jnp.ones((1, 6, 6, 1)), 0, window=2)
    assert found[0, 0, 0] == pytest.approx(24)  # one window alone covers the corner
    assert found[0, 0, 1] == pytest.approx(12)  # of two, one covers the first pixel
    assert np.count_nonzero(found) == 4


def test_deletion_and_insertion_know_when_the_pixel_that_counts_goes():
    images, ramp = jnp.ones((2, 4, 4, 1)), jnp.arange(16.0).reshape(4, 4)
    maps = jnp.stack([-ramp, ramp])  # the corner first, the corner last
    # Sixteen parts: the probability is 1 with the pixel and 0 without, up to 1e-5; half a part is the trapezoid's.
    np.testing.assert_allclose(deletion(Corner(), {}, images, maps, 0, steps=16), [0.5 / 16, 15.5 / 16], atol=1e-4)
    dark_around = jnp.zeros((2, 32, 32, 1)).at[:, 0, 0].set(1)
    maps = jnp.stack([dark_around[0, ..., 0], -dark_around[0, ..., 0]])
    # 36 pixels of the window lie inside of the corner, of weights up to 1: the blurred corner is near 0.05.
    found = insertion(Corner(), {}, dark_around, maps, 0, steps=32)
    np.testing.assert_allclose(found, [1 - 0.5 / 32, 0.5 / 32], atol=1e-4)


def test_a_score_looks_at_the_class_of_the_whole_image():
    """Not at what the emptied image is taken for."""
    maps = jnp.zeros(IMAGES.shape[:3])
    best = np.asarray(NET.apply(VARIABLES, IMAGES, train=False)).argmax(-1)
    for score in (deletion, insertion):
        np.testing.assert_array_equal(
            score(NET, VARIABLES, IMAGES, maps, steps=2), score(NET, VARIABLES, IMAGES, maps, best, steps=2)
        )


def test_blurred_images_keep_what_is_even_and_spread_a_point_by_a_gaussian():
    np.testing.assert_allclose(_blurred(jnp.full((1, 20, 30, 3), 0.7)), 0.7, rtol=1e-5)
    point = _blurred(jnp.zeros((1, 31, 31, 1)).at[0, 15, 15].set(1))[0, ..., 0]
    one = np.exp(-(np.arange(-5, 6) ** 2) / 50)
    np.testing.assert_allclose(point[10:21, 10:21], np.outer(one, one) / one.sum() ** 2, rtol=1e-4)
    assert np.count_nonzero(point) == 121


def test_mistakes_are_told():
    for call, line in (
        (lambda: occlusion(NET, VARIABLES, IMAGES, window=25), "windows of 1 to 24"),
        (lambda: occlusion(NET, VARIABLES, IMAGES, window=4, stride=5), "not by 4 moved by 5"),
        (lambda: deletion(NET, VARIABLES, IMAGES, IMAGES), "maps of these images are"),
        (lambda: insertion(NET, VARIABLES, IMAGES, IMAGES[..., 0], steps=0), "steps must be a positive"),
    ):
        with pytest.raises(UserError, match=line):
            call()
