import threading
from functools import partial

import jax
import numpy as np
import pytest
from odd_images import JPEG, PIXELS
from runs import SAFETY
from test_host import dataset

from cnn_jax import UserError
from cnn_jax.data import engines
from cnn_jax.data.arrays import ArraySource
from cnn_jax.data.crops import random_resized_box
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.engines import FromHost, OnDevice, choose_engine, gather
from cnn_jax.data.host import HostBatches
from cnn_jax.data.order import epoch_order
from cnn_jax.data.views import random_part
from cnn_jax.sharding import data_mesh, replicated, split

VIEW = partial(random_part, size=16, box=random_resized_box)
MESH = data_mesh(8)
SPLIT, EVERYWHERE = split(MESH), replicated(MESH)
NUMBERS = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 1), np.uint8)
SMALL = Dataset("small", "train", ("a", "b", "c"), (6, 5, 1), ArraySource(NUMBERS, np.arange(40) % 3, "memory"))


def on_device(of, **options):
    return OnDevice(of, everywhere=EVERYWHERE, split=SPLIT, **options)


def from_host(of, **options):
    return FromHost(of, VIEW, 16, split=SPLIT, threads=2, **options)


def seen(engine, rows, epoch=0):
    images = jax.jit(gather)
    return [jax.device_get(images(batch)) for batch in engine.batches(rows, epoch)]


def test_both_engines_give_the_same_batches_of_a_set_that_fits_both_ways():
    rows = epoch_order(0, 0, 40, 8)
    for one, other in zip(seen(on_device(SMALL), rows), seen(from_host(SMALL), rows), strict=True):
        assert one.keys() == other.keys() == {"image", "label", "good"}
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
            assert one[key].dtype == other[key].dtype
    np.testing.assert_array_equal(seen(on_device(SMALL), rows)[2]["image"], NUMBERS[rows[2]])


def test_both_engines_skip_the_same_images():
    files = [PIXELS + 3 * i for i in range(16)]
    files[5] = files[6] = b""
    bad = dataset(files, (40, 60, 3))
    rows = np.arange(16, dtype=np.int32).reshape(2, 8)
    one, other = on_device(bad, bad_images="skip"), from_host(bad, bad_images="skip")
    for a, b in zip(seen(one, rows), seen(other, rows), strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    assert one.skipped == other.skipped and sorted(one.skipped) == [5, 6]
    np.testing.assert_array_equal(seen(one, rows)[0]["image"][5], files[7])
    assert seen(one, rows)[0]["good"].tolist() == [True] * 5 + [False, False, True]
    with pytest.raises(UserError, match="file 5 is empty"):
        on_device(bad)


def test_images_of_many_sizes_come_from_the_host_alone():
    many = dataset([JPEG, PIXELS[:30]] * 8)
    rows = np.arange(16, dtype=np.int32).reshape(2, 8)
    batches = seen(from_host(many), rows)
    assert [batch["image"].shape for batch in batches] == [(8, 16, 16, 3)] * 2
    with pytest.raises(UserError, match="files has images of many sizes .40x60 and 30x60., which are not kept"):
        on_device(many)


def test_the_example_is_what_comes():
    rows = epoch_order(0, 0, 40, 8)
    for engine in (on_device(SMALL), from_host(SMALL), from_host(dataset([JPEG] * 40))):
        batch = next(engine.batches(rows, 0))
        example = engine.example((8,))
        of_batch, of_example = (
            jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), tree) for tree in (batch, example)
        )
        assert of_batch == of_example


def test_a_resumed_epoch_gives_the_batches_that_were_left():
    photos = dataset([JPEG] * 64)
    rows = epoch_order(0, 3, 64, 8)
    whole, rest = seen(from_host(photos), rows, 3), seen(from_host(photos), epoch_order(0, 3, 64, 8, 24), 3)
    assert len(rest) == 5
    for one, other in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


def test_the_wait_for_data_is_counted():
    engine = from_host(dataset([JPEG] * 64))
    assert engine.waited == 0
    seen(engine, epoch_order(0, 0, 64, 8))
    assert engine.waited > 0
    assert on_device(SMALL).waited == 0


@pytest.mark.parametrize(
    ("asked", "memory", "chosen"),
    [("auto", 4801, "device"), ("auto", 4799, "host"), ("device", 1, "device"), ("host", 10**9, "host")],
)
def test_sets_live_on_the_device_up_to_a_quarter_of_its_memory(monkeypatch, asked, memory, chosen):
    monkeypatch.setattr(engines, "device_memory", lambda: memory)
    half = SMALL.select(np.arange(0, 40, 2), "half")
    few = SMALL.select(np.arange(0, 40, 2), "other half")
    assert NUMBERS.nbytes == 1200
    assert choose_engine(asked, half, few) == chosen


def test_unknown_sizes_are_left_on_the_host():
    assert choose_engine("auto", SMALL, dataset([JPEG] * 4)) == "host"
    with pytest.raises(UserError, match="--engine device needs images of one known size, which files does not have"):
        choose_engine("device", SMALL, dataset([JPEG] * 4))
    assert engines.device_memory() > 10**8


def grain_threads():
    return {thread for thread in threading.enumerate() if "grain-prefetch" in thread.name}


def ended(threads):
    """Whether they end, which a thread does after its chunk."""
    for thread in threads:
        thread.join(SAFETY)
    return not any(thread.is_alive() for thread in threads)


def test_what_was_begun_is_what_the_next_epoch_takes(monkeypatch):
    photos, made = dataset([JPEG] * 64), []
    monkeypatch.setattr(engines, "HostBatches", lambda *given: made.append(HostBatches(*given)) or made[-1])
    engine, rows = from_host(photos), epoch_order(0, 3, 64, 8)
    engine.begin(rows, 3)
    assert len(made) == 1  # and at work
    begun = seen(engine, rows, 3)
    assert len(made) == 1
    for one, other in zip(begun, seen(from_host(photos), rows, 3), strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.parametrize(("epoch", "row"), [(4, 0), (3, 1)])
def test_what_was_begun_in_vain_is_not_taken_and_ends(epoch, row):
    photos, before = dataset([JPEG] * 64), grain_threads()
    engine, rows = from_host(photos), epoch_order(0, 3, 64, 8)
    engine.begin(rows, 3)
    for one, other in zip(seen(engine, rows[row:], epoch), seen(from_host(photos), rows[row:], epoch), strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
    engine.close()
    assert ended(grain_threads() - before)


def test_an_epoch_that_is_left_early_leaves_no_thread():
    before = grain_threads()
    batches = from_host(dataset([JPEG] * 640)).batches(np.arange(640, dtype=np.int32).reshape(80, 8), 0)
    next(batches)
    batches.close()
    assert ended(grain_threads() - before)


def test_rows_of_numbers_come_in_blocks_and_none_is_lost():
    rows = epoch_order(0, 0, 40, 1)[:, [0] * 8]
    assert len(rows) == 40 > engines.BLOCK
    np.testing.assert_array_equal([batch["index"] for batch in on_device(SMALL).batches(rows)], rows)
