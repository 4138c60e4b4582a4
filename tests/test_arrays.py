import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cnn_jax import UserError, open_dataset
from cnn_jax.data import arrays
from cnn_jax.data.arrays import SYNTHETIC_SPLITS

RNG = np.random.default_rng(0)
COLOUR, GREY = (RNG.integers(0, 256, shape, np.uint8) for shape in ((12, 5, 4, 3), (6, 5, 4)))
LABELS = np.arange(12) % 3


def saved(tmp_path, save=np.savez, **arrays) -> str:
    save(tmp_path / "data.npz", **arrays)
    return str(tmp_path / "data.npz")


def test_arrays_as_keras_names_them(tmp_path):
    path = saved(tmp_path, x_train=COLOUR, y_train=LABELS[:, None], x_test=COLOUR[:3], y_test=np.uint8([[2], [0], [1]]))
    train, test = (open_dataset(path, split) for split in ("train", "test"))
    np.testing.assert_array_equal(train.images, COLOUR)
    assert train.labels.tolist() == LABELS.tolist() and test.labels.tolist() == [2, 0, 1]
    assert train.shape == (5, 4, 3) and train.classes == ("0", "1", "2")
    assert test.place(2) == f"image 2 of {path} x_test"


def test_arrays_as_medmnist_names_them_in_grey(tmp_path):
    path = saved(tmp_path, np.savez_compressed, val_images=GREY, val_labels=LABELS[:6], train_images=GREY[:2])
    dataset = open_dataset(path, "val")
    np.testing.assert_array_equal(dataset.images, GREY[..., None])
    assert dataset.shape == (5, 4, 1)
    with pytest.raises(UserError, match="unknown split of .* 'train'; there are: val"):
        open_dataset(path, "train")  # it has no labels


def test_images_and_labels_are_the_split_train_with_named_classes(tmp_path):
    path = saved(tmp_path, images=COLOUR, labels=LABELS, classes=["ant", "bee", "cat", "dog"])
    dataset = open_dataset(path, "train[:50%]")
    assert len(dataset) == 6 and dataset.classes == ("ant", "bee", "cat", "dog")
    assert pickle.loads(pickle.dumps(dataset)).labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": LABELS}, "has a, not x_train and y_train, train_images and train_labels, or images and labels"),
        ({}, "has no arrays, not x_train"),
        ({"images": COLOUR / 255, "labels": LABELS}, "images is (12, 5, 4, 3) float64; images are (N, H, W) or"),
        ({"images": COLOUR.transpose(0, 3, 1, 2), "labels": LABELS}, "images is (12, 3, 5, 4) uint8; images are (N,"),
        ({"images": COLOUR[0, 0], "labels": LABELS}, "images is (4, 3) uint8"),
        ({"images": COLOUR, "labels": LABELS[:5]}, "labels is (5,) int64; images needs 12 whole numbers"),
        ({"images": COLOUR, "labels": LABELS / 2}, "labels is (12,) float64; images needs 12 whole numbers"),
        ({"images": COLOUR, "labels": np.eye(12, 3, dtype=int)}, "labels is (12, 3) int64"),
        ({"images": COLOUR, "labels": LABELS - 1}, "labels goes from -1 to 1, not 0 to 1"),
        ({"images": COLOUR, "labels": LABELS, "classes": ["a", "b"]}, "labels goes from 0 to 2, not 0 to 1"),
        ({"images": np.array([{}] * 12), "labels": LABELS}, "images holds Python objects; only plain arrays are read"),
        ({"images": COLOUR[:0], "labels": LABELS[:0]}, "is empty: train has 0 images"),
    ],
)
def test_arrays_that_are_no_images_are_one_line(tmp_path, given, message):
    path = saved(tmp_path, **given)
    with pytest.raises(UserError) as error:
        open_dataset(path, "train")
    assert path in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 and no more", b"text", "cut", "array"])
def test_a_file_that_is_no_npz_is_one_line(tmp_path, content):
    path = tmp_path / "bad.npz"
    if content == "cut":
        whole = Path(saved(tmp_path, np.savez_compressed, images=COLOUR, labels=LABELS)).read_bytes()
        content = whole[: len(whole) // 2]
    if content == "array":
        with path.open("wb") as file:
            np.save(file, LABELS)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        open_dataset(str(path), "train")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_array_is_told(tmp_path):
    path = saved(tmp_path, images=COLOUR, labels=LABELS)
    raw = bytearray(Path(path).read_bytes())
    raw[400:410] = bytes(10)  # inside the images; the zip's checksum finds it
    Path(path).write_bytes(raw)
    with pytest.raises(UserError, match="is no whole .npz file of plain arrays"):
        open_dataset(path, "train")


def hostile(tmp_path, images, labels=None, **zipped) -> str:
    """A file whose members are the bytes given, as no np.savez writes it."""
    path = tmp_path / "hostile.npz"
    labels = npy(LABELS) if labels is None else labels
    with zipfile.ZipFile(path, "w", **zipped) as file:
        file.writestr("images.npy", images)
        file.writestr("labels.npy", labels)
    return str(path)


def npy(array, shape=None) -> bytes:
    """An array's file; its header may tell another shape."""
    written = io.BytesIO()
    about = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(written, about | {"shape": shape or array.shape})
    return written.getvalue() + array.tobytes()


def encrypted(tmp_path) -> str:
    path = Path(hostile(tmp_path, npy(COLOUR)))
    raw = bytearray(path.read_bytes())
    for place in (raw.index(b"PK\x03\x04") + 6, raw.index(b"PK\x01\x02") + 8):  # the flags, in both of its places
        raw[place] |= 1
    path.write_bytes(raw)
    return str(path)


BILLIONS = np.array([0] * 11 + [10**9])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: saved(p, images=COLOUR, labels=BILLIONS),
            "has a label 1000000000; labels are numbers of classes, b",
        ),
        (
            lambda p: saved(p, images=COLOUR, labels=np.full(12, 2**63, np.uint64)),
            "labels goes from -9223372036854775808",
        ),
        (
            lambda p: hostile(p, npy(COLOUR, (10**12, 5, 4, 3))),
            "images says that it is (1000000000000, 5, 4, 3) uint8, ",
        ),
        (
            lambda p: hostile(p, npy(COLOUR, (-12, 5, 4, -3))),
            "images says that it is (-12, 5, 4, -3) uint8, but has 720",
        ),
        (lambda p: hostile(p, npy(COLOUR), compression=zipfile.ZIP_LZMA), "encrypted or compressed in a way"),
        (encrypted, "images is encrypted or compressed in a way that np.savez does not write"),
        (lambda p: hostile(p, b"\x93NUMPY\x07\x00 and so on"), "is no whole .npz file of plain arrays ("),
        (lambda p: hostile(p, pickle.dumps(COLOUR)), "is no whole .npz file of plain arrays (the magic string is not"),
    ],
)
def test_a_hostile_file_is_told_before_anything_is_made(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(UserError) as error:
        open_dataset(path, "train")
    assert path in str(error.value) and message in str(error.value) and "\n" not in str(error.value)
    assert "allow_pickle" not in str(error.value)


def test_what_would_not_fit_the_memory_is_not_read(tmp_path, monkeypatch):
    """A megabyte of zeros is a kilobyte in the file."""
    path = saved(tmp_path, np.savez_compressed, images=np.zeros((256, 64, 64), np.uint8), labels=np.zeros(256, int))
    assert len(open_dataset(path, "train")) == 256
    monkeypatch.setattr(arrays.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 100}.__getitem__)
    with pytest.raises(UserError, match=r"holds 1,050,880 bytes of arrays, more than this machine's memory of 409,600"):
        open_dataset(path, "train")


def test_what_is_neither_images_nor_labels_is_not_looked_at(tmp_path):
    path = saved(tmp_path, images=COLOUR, labels=LABELS, notes=np.array([{}]))
    assert len(open_dataset(path, "train")) == 12


def test_synthetic_images_depend_on_their_number_alone():
    one, two = (open_dataset("synthetic:20x30x7", "train") for _ in range(2))
    assert one.shape == (20, 30, 3) and len(one.classes) == 7
    assert len(one) == SYNTHETIC_SPLITS["train"] == 10_000
    forward, backward = one.read([3, 9_999]), two.read([9_999, 3])
    np.testing.assert_array_equal(forward[0][0], backward[1][0])
    np.testing.assert_array_equal(forward[1][0], backward[0][0])
    assert [label for _, label in one.read([0, 6, 7, 9])] == [0, 6, 0, 2]
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != open_dataset("synthetic:20x30x7", "test").fingerprint


def test_synthetic_images_of_a_class_look_alike():
    dataset = open_dataset("synthetic:32x32x4", "train[:400]")
    means = dataset.images.mean((1, 2))
    spread = [means[dataset.labels == label].std(0).max() for label in range(4)]
    centres = np.stack([means[dataset.labels == label].mean(0) for label in range(4)])
    apart = min(np.linalg.norm(centres[i] - centres[j]) for i in range(4) for j in range(i))
    assert apart > 3 * max(spread)


@pytest.mark.parametrize("spec", ["", "224", "224x224", "8x8x8x8", "8x8x2.5", "ax8x2"])
def test_a_size_that_is_none_is_one_line(spec):
    with pytest.raises(UserError, match="is not like synthetic:224x224x1000"):
        open_dataset(f"synthetic:{spec}", "train")


@pytest.mark.parametrize("spec", ["0x8x2", "8x8x0", "99999x8x2", "32x32x1000000000"])
def test_a_size_out_of_range_is_told_the_range(spec):
    with pytest.raises(UserError, match="sides go from 1 to 10,000, classes from 1 to 100,000"):
        open_dataset(f"synthetic:{spec}", "train")
