import numpy as np
import pytest

from cnn_jax import UserError
from cnn_jax.data.order import Timeline, class_order, epoch_order, evaluation_order, start_of
from cnn_jax.data.order import held_out as held_out_of


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


def test_an_epoch_can_go_on_in_its_midst_in_other_batches():
    whole = epoch_order(3, 5, 103, 1).ravel()
    np.testing.assert_array_equal(epoch_order(3, 5, 103, 10, offset=40).ravel(), whole[40:100])
    np.testing.assert_array_equal(epoch_order(3, 5, 103, 7, offset=40).ravel(), whole[40:])
    assert epoch_order(3, 5, 103, 64, offset=40).shape == (0, 64)


@pytest.mark.parametrize(
    ("seen", "batch_size", "place"),
    [(0, 10, (0, 0)), (90, 10, (0, 90)), (100, 10, (1, 0)), (80, 24, (1, 0)), (206, 10, (2, 0))],
)
def test_a_tail_that_fills_no_batch_is_passed_over(seen, batch_size, place):
    assert start_of(seen, 103, batch_size) == place


def walk(timeline, step, seen, steps):
    """The images that a run of `steps` steps is given, its place afterwards, and after which steps an epoch ended."""
    given, ends = [], []
    while steps:
        epoch, offset = start_of(seen, timeline.size, timeline.batch_size)
        for row in epoch_order(0, epoch, timeline.size, timeline.batch_size, offset)[:steps]:
            given += [(epoch, index) for index in row.tolist()]
            offset, step, steps = offset + timeline.batch_size, step + 1, steps - 1
            if timeline.ends_epoch(step):
                ends.append((step, epoch + 1))
                assert timeline.epoch(step) == epoch + 1
        seen = epoch * timeline.size + offset
    return given, step, seen, ends


def test_a_run_that_never_changes_has_no_shift_at_any_step():
    timeline = Timeline(size=103, batch_size=10, epochs=4)
    for steps in range(40):
        _, step, seen, _ = walk(timeline, 0, 0, steps)
        assert timeline.going_on(step, seen) == timeline


@pytest.mark.parametrize("batch_sizes", [(10, 7), (10, 25), (7, 50), (10, 103), (20, 10)])
def test_after_a_change_of_batch_size_no_image_comes_twice_and_epochs_end_together(batch_sizes):
    """Three changes in a row, each in mid-epoch; oracle: which images were given, written down one by one."""
    size, first, second = 103, *batch_sizes
    step = seen = 0
    given, ends = [], []
    for batch_size in (first, second, first):
        timeline = Timeline(size, batch_size, epochs=9).going_on(step, seen)
        more, step, seen, ended = walk(timeline, step, seen, size // batch_size + 1)
        assert timeline.going_on(step, seen) == timeline  # the same wherever the run is cut
        given += more
        ends += ended
    assert len(set(given)) == len(given)
    epochs = [epoch for _, epoch in ends]
    assert epochs == sorted(set(epochs)) and len(epochs) >= 2
    for epoch in range(epochs[-1]):  # all but a tail, which is all of an epoch that has less than a batch left
        assert len([1 for e, _ in given if e == epoch]) > size - max(batch_sizes)
    assert timeline.ends_epoch(timeline.steps)


def test_the_held_out_images_are_always_the_same_and_from_everywhere():
    kept, held_out = held_out_of(1000, 0.1)
    assert len(held_out) == 100 and sorted([*kept, *held_out]) == list(range(1000))
    np.testing.assert_array_equal(held_out, held_out_of(1000, 0.1)[1])
    assert np.histogram(held_out, 10, (0, 1000))[0].min() >= 3


@pytest.mark.parametrize(("size", "batch_size"), [(1003, 64), (64, 64), (1, 64), (65, 1)])
def test_evaluation_shows_every_image_once_and_masks_the_rest(size, batch_size):
    indices, mask = evaluation_order(size, batch_size)
    assert indices.shape == mask.shape == (-(-size // batch_size), batch_size) and indices.dtype == np.int32
    assert indices.min() >= 0 and indices.max() < size
    assert indices[mask].tolist() == list(range(size))


def test_what_is_left_begins_at_the_place_in_an_epoch():
    line = Timeline(size=23, batch_size=4, epochs=3)
    assert list(line.left(0)) == [(0, 0), (1, 0), (2, 0)]
    assert list(line.left(23 + 8)) == [(1, 8), (2, 0)]
    assert list(line.left(20)) == [(1, 0), (2, 0)]  # three images fill no batch
    assert list(line.left(3 * 23)) == []


def test_an_epochs_last_step_is_saved_when_it_is_settled():
    line = Timeline(size=23, batch_size=4, epochs=3)
    assert [step for step in range(1, 16) if line.is_due(step, 2)] == [2, 4, 6, 8, 12, 14]
    assert not any(line.is_due(step, every) for step in range(1, 16) for every in (0, 5))
    assert not line.ends_epoch(0)


LABELS = np.random.default_rng(0).permutation(np.repeat([3, 5, 8, 13, 21], 24))


@pytest.mark.parametrize(("batch_size", "per_class"), [(20, 4), (8, 4), (6, 3), (10, 2), (2, 2), (5, 1)])
def test_a_batch_by_classes_has_as_many_of_each_and_an_epoch_every_image_once(batch_size, per_class):
    order = class_order(3, 5, LABELS, batch_size, per_class)
    assert order.dtype == np.int32 and order.shape == (120 // batch_size, batch_size)
    for row in LABELS[order].reshape(len(order), -1, per_class):
        assert (row == row[:, :1]).all()
        assert len({*row[:, 0].tolist()}) == batch_size // per_class
    assert len(np.unique(order)) == order.size


def test_an_order_by_classes_goes_on_at_any_multiple_in_other_batches():
    whole = class_order(3, 5, LABELS, 8, 4).ravel()
    for offset in range(0, 120, 4):
        np.testing.assert_array_equal(
            class_order(3, 5, LABELS, 8, 4, offset).ravel(), whole[offset:][: (120 - offset) // 8 * 8]
        )
        np.testing.assert_array_equal(class_order(3, 5, LABELS, 4, 4, offset).ravel(), whole[offset:])
    np.testing.assert_array_equal(
        class_order(3, 5, LABELS, 20, 4, 32).ravel(), class_order(3, 5, LABELS, 12, 4, 32).ravel()[:80]
    )
    assert class_order(3, 5, LABELS, 20, 4, offset=112).shape == (0, 20)


def test_an_order_by_classes_depends_on_seed_and_epoch_alone_and_mixes_classes():
    first = class_order(0, 1, LABELS, 8, 4)
    np.testing.assert_array_equal(first, class_order(0, 1, LABELS, 8, 4))
    np.testing.assert_array_equal(first, class_order(0, 1, LABELS * 2 + 1, 8, 4))  # a class by another name
    assert not np.array_equal(first, class_order(0, 2, LABELS, 8, 4))
    assert not np.array_equal(first, class_order(1, 1, LABELS, 8, 4))
    many = np.repeat(np.arange(40), 40)
    groups = np.sort(class_order(0, 0, many, 16, 4).reshape(-1, 4, 4)[..., 0] // 40)
    assert len(np.unique(groups, axis=0)) > 0.9 * len(groups)  # batches of the same four would teach little


def test_small_classes_come_as_often_as_large_ones():
    labels = np.repeat(np.arange(4), [1, 3, 10, 106])
    order = class_order(0, 0, labels, 12, 4)
    counts = np.bincount(labels[order.ravel()])
    assert order.size == 120 and counts.max() - counts.min() <= 4  # a round at most
    images = np.bincount(order.ravel())
    assert images[0] == counts[0] and np.ptp(images[1:4]) <= counts[1] // 4 and images[14:].max() == 1


def test_a_batch_that_is_not_made_of_whole_classes_is_told():
    with pytest.raises(UserError, match="a multiple of its 4 images a class, for 5 classes 20 at most, not 10"):
        class_order(0, 0, LABELS, 10, 4)
    with pytest.raises(UserError, match="20 at most, not 24"):
        class_order(0, 0, LABELS, 24, 4)
