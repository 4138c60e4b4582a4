import multiprocessing
import os
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
from conftest import ROOT
from odd_images import BAD, GOOD, JPEG, PIXELS
from runs import SAFETY

from cnn_jax import UserError
from cnn_jax.data.crops import random_resized_box
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.decode import BadImage
from cnn_jax.data.host import CHUNK, HostBatches, HostChunks
from cnn_jax.data.order import epoch_order
from cnn_jax.data.views import middle, random_part, whole
from cnn_jax.errors import LostData

VIEW = partial(random_part, size=16, box=random_resized_box)
MIDDLE = partial(middle, size=16, crop=0.875, interpolation="bilinear")


class Files:
    """A source of encoded files in memory; a record of None cannot be read."""

    remote = False

    def __init__(self, files, classes=3):
        self.files, self.classes = files, classes

    def __len__(self):
        return len(self.files)

    def read(self, indices):
        if any(self.files[i] is None for i in indices):
            raise BadImage("cannot be read (hash mismatch)")
        return [(self.files[i], i % self.classes) for i in indices]

    def place(self, index):
        return f"file {index}"


def dataset(files, shape=(None, None, 3)):
    return Dataset("files", "train", ("a", "b", "c"), shape, Files(files))


PHOTOS = dataset([JPEG, *(data for data, _, _ in GOOD.values())] * 5)


def chunks(of, view, rows, **options):
    return HostChunks(of, view, rows, of.shape if of.fixed_size else (16, 16, 3), **options)


def rows(of, batch_size=8, epoch=0):
    return epoch_order(0, epoch, len(of), batch_size)


def test_a_batch_is_its_images_through_the_view():
    order = rows(PHOTOS)
    batch = chunks(PHOTOS, VIEW, order, draw=(7, 2))[3]
    assert batch["image"].shape == (8, 16, 16, 3) and batch["image"].dtype == np.uint8
    assert batch["label"].tolist() == [i % 3 for i in order[3]] and batch["label"].dtype == np.int32
    assert batch["good"].all() and batch["bad"] == {}
    for slot, index in enumerate(order[3].tolist()):
        ((image, _),) = PHOTOS.read([index])
        np.testing.assert_array_equal(batch["image"][slot], VIEW(image, 3, (7, 2, index)))


def test_an_images_crop_depends_on_seed_epoch_and_image_alone():
    order = rows(PHOTOS, 4)
    one = chunks(PHOTOS, VIEW, order, draw=(0, 0))
    other_batches = chunks(PHOTOS, VIEW, order.reshape(-1, 2), draw=(0, 0))
    np.testing.assert_array_equal(one[1]["image"][2:], other_batches[3]["image"])
    assert not np.array_equal(one[1]["image"], chunks(PHOTOS, VIEW, order, draw=(0, 1))[1]["image"])
    assert not np.array_equal(one[1]["image"], chunks(PHOTOS, VIEW, order, draw=(1, 0))[1]["image"])


@pytest.mark.parametrize(("threads", "processes"), [(1, 0), (3, 0), (1, 2)])
def test_batches_come_in_order_whoever_makes_them(threads, processes):
    order = rows(PHOTOS)
    batches = chunks(PHOTOS, VIEW, order, draw=(0, 0))
    made = list(HostBatches(batches, threads, processes))
    assert len(made) == len(order)
    for index, batch in enumerate(made):
        np.testing.assert_array_equal(batch["image"], batches[index]["image"])
        np.testing.assert_array_equal(batch["label"], batches[index]["label"])


@pytest.mark.parametrize(("threads", "processes"), [(3, 0), (1, 2)])
def test_a_batch_of_many_chunks_is_its_images_in_order(threads, processes):
    files = [np.full((2, 2, 1), i % 256, np.uint8) for i in range(400)]
    files[130] = b""
    of, order = dataset(files, (2, 2, 1)), np.arange(400, dtype=np.int32)[::-1].reshape(2, 200)
    assert chunks(of, whole, order).per_batch == 4 > 200 // CHUNK
    made = list(HostBatches(chunks(of, whole, order, bad_images="skip"), threads, processes))
    for batch, row in zip(made, order, strict=True):
        stands_in = np.where(row == 130, 131, row)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], stands_in % 256)
        np.testing.assert_array_equal(batch["label"], stands_in % 3)
        np.testing.assert_array_equal(batch["good"], row != 130)
    assert [list(batch["bad"]) for batch in made] == [[], [130]]


def test_no_more_than_two_batches_and_a_chunk_a_thread_are_made_ahead():
    of = dataset([np.zeros((2, 2, 1), np.uint8)] * 4000, (2, 2, 1))
    batches = HostBatches(chunks(of, whole, np.arange(4000, dtype=np.int32).reshape(20, 200)), 3)
    next(batches)
    assert max(batches._in_place.images) <= 1 + 2 + 3 / 4
    batches.close()


def test_of_a_remote_set_a_chunk_is_one_request_and_of_a_near_one_an_image(monkeypatch):
    for remote, sizes in ((True, {50}), (False, {1})):
        of = dataset([PIXELS] * 100, (40, 60, 3))
        of.source.remote, asked, read = remote, [], of.source.read
        of.source.read = lambda indices, read=read, asked=asked: (asked.append(len(indices)), read(indices))[1]
        list(HostBatches(chunks(of, whole, np.arange(100, dtype=np.int32)[None]), 2))
        assert set(asked) == sizes and sum(asked) == 100


def test_a_bad_record_of_a_remote_chunk_is_stood_in_for():
    files = [PIXELS + 3 * i for i in range(10)]
    files[2] = None
    of = dataset(files, (40, 60, 3))
    of.source.remote = True
    batch = chunks(of, whole, np.arange(10, dtype=np.int32)[None], bad_images="skip")[0]
    assert list(batch["bad"]) == [2] and batch["good"].tolist() == [i != 2 for i in range(10)]
    np.testing.assert_array_equal(batch["image"][2], files[3])


@pytest.mark.parametrize("processes", [0, 2])
def test_batches_that_are_closed_leave_no_thread_and_no_process(processes):
    order = np.concatenate([rows(PHOTOS)] * 20)
    batches = HostBatches(chunks(PHOTOS, VIEW, order, draw=(0, 0)), 2, processes)
    next(batches)
    batches.close()
    makers = [*multiprocessing.active_children(), *(t for t in threading.enumerate() if "grain-prefetch" in t.name)]
    for maker in makers:
        maker.join(SAFETY)
        assert not maker.is_alive()


def test_a_killed_worker_is_lost_data():
    order = np.concatenate([rows(PHOTOS)] * 200)
    batches = HostBatches(chunks(PHOTOS, VIEW, order, draw=(0, 0)), 1, 1)
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(LostData, match="a worker process ended .*; fewer --workers need less memory"):
        list(batches)
    batches.close()


@pytest.mark.parametrize("name", BAD)
def test_each_bad_file_ends_a_run_or_is_skipped(name):
    files = [JPEG] * 10
    files[4], message = BAD[name]
    order = np.arange(10, dtype=np.int32).reshape(2, 5)
    with pytest.raises(UserError, match=rf"file 4 .*{message}.*; --bad-images skip goes on without such") as error:
        chunks(dataset(files), MIDDLE, order)[0]
    assert "\n" not in str(error.value)
    batch = chunks(dataset(files), MIDDLE, order, bad_images="skip")[0]
    assert batch["good"].tolist() == [True, True, True, True, False]
    assert list(batch["bad"]) == [4] and batch["bad"][4].startswith("file 4 ")
    assert batch["label"].tolist() == [0, 1, 2, 0, 2]  # file 5 stands in its place


def test_a_record_that_cannot_be_read_is_found_within_its_batch():
    files = [JPEG] * 10
    files[2] = None
    order = np.arange(10, dtype=np.int32).reshape(2, 5)
    with pytest.raises(UserError, match=r"file 2 cannot be read \(hash mismatch\); --bad-images skip"):
        chunks(dataset(files), MIDDLE, order)[0]
    assert chunks(dataset(files), MIDDLE, order, bad_images="skip")[0]["good"].tolist() == [1, 1, 0, 1, 1]


def test_who_stands_in_for_a_bad_image_does_not_depend_on_the_batch():
    files = [PIXELS + 3 * i for i in range(12)]
    files[11] = b""
    small, large = (
        chunks(dataset(files, (40, 60, 3)), whole, np.arange(12, dtype=np.int32).reshape(-1, size), bad_images="skip")
        for size in (2, 12)
    )
    np.testing.assert_array_equal(small[5]["image"][1], large[0]["image"][11])
    np.testing.assert_array_equal(large[0]["image"][11], files[0])  # the next one, around the end


def test_a_set_of_nothing_but_bad_images_ends():
    with pytest.raises(UserError, match=r"file \d is empty .*and so it goes on for 100 images"):
        chunks(dataset([b""] * 5), MIDDLE, rows(dataset([b""] * 5), 5), bad_images="skip")[0]


def test_images_of_another_size_than_the_others_are_told():
    files = [PIXELS, PIXELS, PIXELS[:30], PIXELS]
    with pytest.raises(UserError, match="file 2 has 60 x 30 pixels, not 60 x 40 as others of files"):
        chunks(dataset(files, (40, 60, 3)), whole, np.arange(4, dtype=np.int32)[None])[0]


@pytest.mark.parametrize("processes", [0, 1])
def test_a_bad_image_in_a_thread_or_worker_is_told_all_the_same(processes):
    files = [JPEG] * 64
    files[50] = b""
    batches = chunks(dataset(files), MIDDLE, np.arange(64, dtype=np.int32).reshape(8, 8))
    with pytest.raises(UserError, match="file 50 is empty"):  # and it does not hang
        list(HostBatches(batches, 2, processes))


def test_without_grain_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match="takes grain: pip install grain"):
        HostBatches(chunks(PHOTOS, MIDDLE, rows(PHOTOS)), 2)


def test_the_host_side_knows_no_jax_and_no_tensorflow():
    script = "import sys, cnn_jax.data.host; print('jax' in sys.modules, 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]


def test_a_killed_process_leaves_no_workers(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from test_host import *
if __name__ == "__main__":
    it = HostBatches(chunks(PHOTOS, VIEW, np.concatenate([rows(PHOTOS)] * 50), draw=(0, 0)), 1, 2)
    next(it); print("ready", flush=True); sys.stdin.read()
"""
    (tmp_path / "run.py").write_text(script + "\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, tmp_path / "run.py"], **pipes, text=True, cwd=ROOT)
    assert process.stdout.readline() == "ready\n"
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.kill()
    process.wait()
    assert children
    end = time.monotonic() + SAFETY
    while any(os.path.exists(f"/proc/{child}") for child in children):
        assert time.monotonic() < end
        time.sleep(0.1)
