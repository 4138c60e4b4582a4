import jax
import numpy as np
import pytest
from quick_jit import quick_jit
from scipy import stats

from cnn_jax.data.augment import mixing

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3)).astype(np.float32)
LABELS = np.eye(5, dtype=np.float32)

mixup = quick_jit(mixing.mixup)
cutmix = quick_jit(mixing.cutmix)
random_erasing = quick_jit(mixing.random_erasing)


def test_mixup_blends_images_and_labels_with_the_one_before_in_one_proportion():
    images, labels = mixup(KEY, IMAGES, LABELS, 1.0)
    for i in range(5):
        share = labels[i, i]
        np.testing.assert_allclose(images[i], share * IMAGES[i] + (1 - share) * IMAGES[i - 1], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(labels[i], share * LABELS[i] + (1 - share) * LABELS[i - 1], atol=1e-6)
    assert len(np.unique(np.asarray(labels).max(1))) == 5


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixups_shares_are_beta_distributed(alpha):
    labels = mixup(KEY, np.zeros((3000, 1, 1, 1)), np.tile(np.eye(2), (1500, 1)), alpha)[1]
    own = np.asarray(labels)[np.arange(3000), np.arange(3000) % 2]
    assert stats.kstest(own, stats.beta(alpha, alpha).cdf).pvalue > 0.001


def rectangle(mask):
    """(top, left, height, width) of the True pixels, which must be a full rectangle; None if there are none."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]


def test_cutmix_pastes_a_box_of_the_one_before_and_labels_by_area():
    count = 200
    numbers = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, 8, 9, 1))
    images, labels = map(np.asarray, cutmix(KEY, numbers, np.eye(count), 1.0))
    for i in range(count):
        own = images[i, :, :, 0] == i
        np.testing.assert_array_equal(images[i, :, :, 0][~own], (i - 1) % count)
        rectangle(~own)
        np.testing.assert_allclose(labels[i, i], own.mean(), atol=1e-6)
        np.testing.assert_allclose(labels[i].sum(), 1, atol=1e-6)


def test_cutmixs_areas_are_those_of_the_papers_code():
    """clovaai/CutMix-PyTorch, rand_bbox, in NumPy: its boxes, cut off at the edges."""
    rng, size, areas = np.random.default_rng(0), np.array([20, 30]), []
    for _ in range(3000):
        cut = (size * np.sqrt(1 - rng.beta(1, 1))).astype(int)
        centre = rng.integers(0, size)
        low, high = np.clip(centre - cut // 2, 0, size), np.clip(centre + cut // 2, 0, size)
        areas.append(1 - np.prod(high - low) / 600)
    labels = cutmix(KEY, np.zeros((3000, 20, 30, 1), np.uint8), np.tile(np.eye(2), (1500, 1)), 1.0)[1]
    assert stats.ks_2samp(np.asarray(labels)[np.arange(3000), np.arange(3000) % 2], areas).pvalue > 0.001


def test_cutmix_keeps_the_type_of_the_images():
    assert jax.eval_shape(mixing.cutmix, KEY, IMAGES.astype(np.uint8), LABELS, 1.0)[0].dtype == np.uint8


def test_erasing_fills_a_box_of_some_images_with_noise():
    """Zhong 2017, sec. 4.2: areas of 2% to 40%, ratios of 0.3 to 3.33, values over all of [0, 255]."""
    count, side = 400, 40
    erased = np.asarray(random_erasing(KEY, np.full((count, side, side, 3), -1, np.float32), 0.3))
    masks = (erased[..., 0] >= 0).astype(bool)
    boxes = np.array([box for box in map(rectangle, masks) if box], float)
    assert 84 < len(boxes) < 156  # 120 +- 4 standard deviations
    areas, ratios = boxes[:, 2] * boxes[:, 3] / side**2, boxes[:, 3] / boxes[:, 2]
    slack = 0.03  # sides are whole pixels
    assert 0.02 - slack < areas.min() < 0.05 and 0.35 < areas.max() < 0.4 + slack
    assert ratios.min() > 0.25 and ratios.max() < 4.0 and ratios.min() < 0.5 and ratios.max() > 2
    noise = erased[masks]
    assert stats.kstest(noise.ravel()[:5000], stats.uniform(0, 255).cdf).pvalue > 0.001
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05  # each channel has its own
