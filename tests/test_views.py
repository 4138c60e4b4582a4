import dataclasses
import pickle
from functools import partial

import numpy as np
import pytest
from odd_images import JPEG, PIXELS, PNG

from cnn_jax.data.crops import crop, random_resized_box, scale_jitter_box
from cnn_jax.data.decode import center_crop, decode
from cnn_jax.data.views import middle, random_part, training_view, whole
from cnn_jax.recipes import Augment


def options(**changes):
    return dataclasses.asdict(Augment(**changes))


def test_views_are_what_their_parts_say():
    np.testing.assert_array_equal(whole(PNG, 3, None), PIXELS)
    central = partial(middle, size=24, crop=0.9, interpolation="bicubic")
    np.testing.assert_array_equal(central(JPEG, 3, None), center_crop(JPEG, 3, 24, 0.9, "bicubic"))
    found = random_part(JPEG, 3, (1, 2, 3), size=24, box=random_resized_box)
    rng = np.random.default_rng((1, 2, 3))
    np.testing.assert_array_equal(found, crop(JPEG, 3, 24, lambda h, w: random_resized_box(rng, h, w)))


@pytest.mark.parametrize("kind", ["random_resized", "scale_jitter"])
def test_a_recipe_names_the_random_crop(kind):
    view = training_view(options(crop=kind, crop_scale=(0.2, 0.3), crop_ratio=(1.0, 1.0), jitter=(32, 40)), 24)
    assert view is not None and view(JPEG, 3, (0, 0, 0)).shape == (24, 24, 3)
    box = {
        "random_resized": partial(random_resized_box, scale=(0.2, 0.3), ratio=(1.0, 1.0)),
        "scale_jitter": partial(scale_jitter_box, size=24, shorter=(32, 40)),
    }[kind]
    for index in range(5):
        key = (0, 0, index)
        np.testing.assert_array_equal(view(JPEG, 3, key), random_part(JPEG, 3, key, size=24, box=box))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(view))(JPEG, 3, key), view(JPEG, 3, key))  # for workers


def test_a_recipe_without_a_crop_names_none():
    assert training_view(options(flip=True), 24) is None


def test_grey_sets_have_one_channel():
    assert random_part(JPEG, 1, (0, 0, 0), size=8, box=random_resized_box).shape == (8, 8, 1)
    assert decode(JPEG, 1).shape == (40, 60, 1)
