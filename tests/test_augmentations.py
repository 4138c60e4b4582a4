from functools import partial

import jax.numpy as jnp
import numpy as np
from PIL import Image

from cnn_jax.data import augment
from cnn_jax.data.augment import policies
from cnn_jax.visualize import augmentations
from cnn_jax.visualize.augmentations import draw_augmentations

RNG = np.random.default_rng(0)
PHOTOS, DIGITS = RNG.integers(0, 256, (2, 16, 16, 3), np.uint8), RNG.integers(0, 256, (2, 12, 12, 1), np.uint8)


def test_every_augmentation_and_every_operation_has_a_row():
    rows = augmentations.rows(32)
    functions = [function for _, function in rows.values()]
    shown = {f.func if isinstance(f, partial) else f for f in functions} | {
        f.args[0] for f in functions if isinstance(f, partial) and f.args
    }
    helpers = {"crop_boxes", "fit", "make_mask_preprocess", "make_mixing", "make_preprocess", "normalize"}
    assert {getattr(augment, name) for name in augment.__all__ if name not in helpers} <= shown
    assert set(policies.OPERATIONS) - {"Identity"} <= shown


def test_a_sheet_is_drawn_of_originals_and_draws(tmp_path, monkeypatch):
    seen = []

    def brighter(key, images):
        seen.append(images.shape)
        return jnp.minimum(images + 40.0, 300)

    kinds = {kind: (kind, partial(brighter)) for kind in ("digit", "photo", "pair")}
    monkeypatch.setattr(augmentations, "rows", lambda size: kinds)
    draw_augmentations(tmp_path / "sheet.png", PHOTOS, DIGITS)
    assert seen == [(7, 12, 12, 1), (7, 16, 16, 3), (14, 16, 16, 3)]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500 and len(np.unique(np.asarray(sheet.convert("L")))) > 100  # more than a blank page


def test_an_operation_is_drawn_with_rising_magnitude():
    grey = np.full((3, 4, 4, 1), 100, np.uint8)
    made = augmentations.by_magnitude("Brightness", None, grey)
    np.testing.assert_array_equal(made[:, 0, 0, 0], [10, 100, 190])
