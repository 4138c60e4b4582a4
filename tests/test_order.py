import numpy as np
import pytest

from cnn_jax.data.order import epoch_order, evaluation_batches


def test_an_epoch_shows_no_image_twice():
    order = epoch_order(seed=3, epoch=5, size=103, batch_size=10)
    assert order.shape == (10, 10) and order.dtype == np.int32
    assert len(set(order.ravel().tolist())) == 100
    assert order.min() >= 0 and order.max() < 103


def test_order_depends_on_seed_and_epoch_alone():
    first = epoch_order(0, 1, 100, 10)
    np.testing.assert_array_equal(first, epoch_order(0, 1, 100, 10))
    assert not np.array_equal(first, epoch_order(0, 2, 100, 10))
    assert not np.array_equal(first, epoch_order(1, 1, 100, 10))


def test_the_left_out_images_change_from_epoch_to_epoch():
    left_out = [set(range(103)) - set(epoch_order(0, epoch, 103, 10).ravel().tolist()) for epoch in range(5)]
    assert len(set(map(frozenset, left_out))) == 5


@pytest.mark.parametrize(("size", "batch_size"), [(1003, 64), (64, 64), (1, 64), (65, 1)])
def test_evaluation_shows_every_image_once_and_masks_the_rest(size, batch_size):
    seen = []
    for indices, mask in evaluation_batches(size, batch_size):
        assert indices.shape == mask.shape == (batch_size,)
        assert indices.min() >= 0 and indices.max() < size
        seen += indices[mask].tolist()
    assert seen == list(range(size))
