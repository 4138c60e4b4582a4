import importlib.util
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from fake_gcs import serve
from raw_sets import write_idx_set
from runs import SAFETY, made_once
from tfds_sets import builder_code

from cnn_jax import UserError, open_dataset
from cnn_jax.data.decode import BadImage
from cnn_jax.data.prepare import prepare as prepare_set
from cnn_jax.data.tfds_sets import find_builder, open_tfds


def test_any_prepared_set_is_read_by_name(tiny):
    dataset = open_dataset("tiny_shapes", "test", tiny)
    np.testing.assert_array_equal(dataset.images, np.random.default_rng(20).integers(0, 256, (20, 8, 6, 3), np.uint8))
    assert dataset.labels.tolist() == [i % 3 for i in range(20)]
    assert dataset.classes == ("disc", "square", "star") and dataset.shape == (8, 6, 3)
    assert len(open_dataset("tiny_shapes:1.2.0", "train", tiny)) == 30


def test_images_come_encoded_in_any_order(tiny):
    dataset = open_dataset("tiny_shapes", "train", tiny)
    encoded = {"image": tfds.decode.SkipDecoding()}
    source = tfds.data_source("tiny_shapes", split="train", data_dir=tiny, decoders=encoded)
    for (image, label), index in zip(dataset.read([29, 3, 3, 11]), (29, 3, 3, 11), strict=True):
        assert image == source[index]["image"] and label == source[index]["label"]
    (shard,) = (tiny / "tiny_shapes" / "1.2.0").glob("*train*")
    assert dataset.place(11) == f"record 11 of {shard}"


def unlabelled(name: str, label: int) -> str:
    code = builder_code(name).replace('"label": i % 3', f'"label": {label} if i == 7 else 0')
    return "import tensorflow_datasets as t; t.features.ClassLabel.encode_example = lambda self, x: x\n" + code


ODD = [
    builder_code("tiny_shards").replace(
        "download_and_prepare()", "download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=4))"
    ),
    builder_code("tiny_photos", shape=(None, None, 3)),
    builder_code("tiny_alpha", shape=(8, 6, 4)),
    builder_code("tiny_numbers", label="Scalar(np.int64)"),
    builder_code("tiny_depths", shape="(8, 6, 1), dtype=np.uint16").replace(
        "pixels[i]", "pixels[i][..., 0].astype(np.uint16)"
    ),
    unlabelled("tiny_below", -1),
    unlabelled("tiny_beyond", 3),
]


@pytest.fixture(scope="session")
def odd(tmp_path_factory) -> Path:
    """A folder with the sets of ODD, written by one process. Not to be changed."""

    def make(folder):
        subprocess.run([sys.executable, "-c", "".join(ODD), str(folder)], check=True, capture_output=True)

    return made_once(tmp_path_factory, "odd", make)


def test_many_shards_are_one_split(odd, tmp_path):
    shutil.copytree(odd / "tiny_shards", tmp_path / "tiny_shards")
    dataset = open_dataset("tiny_shards", "train[5:]", tmp_path)
    shards = sorted((tmp_path / "tiny_shards" / "1.2.0").glob("*train*"))
    assert len(shards) == 4
    assert [label for _, label in dataset.read(range(25))] == [i % 3 for i in range(5, 30)]
    # 30 records in 4 files: 8, 7, 7, 8 by TFDS's rounding.
    lengths = [int(n) for n in find_builder("tiny_shards", tmp_path).info.splits["train"].shard_lengths]
    assert dataset.place(0) == f"record 5 of {shards[0]}"
    assert dataset.place(24) == f"record {lengths[3] - 1} of {shards[3]}"
    assert dataset.place(lengths[0] - 5) == f"record 0 of {shards[1]}"
    shards[2].unlink()
    with pytest.raises(UserError, match="00002-of-00004 is missing; copy it there, or prepare the data set again"):
        open_dataset("tiny_shards", "train", tmp_path)
    assert len(open_dataset("tiny_shards", "test", tmp_path)) == 20


def test_threads_and_other_processes_read_alike(tiny):
    dataset = open_dataset("tiny_shapes", "train", tiny)
    one_by_one = [dataset.read([i])[0] for i in range(30)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: dataset.read([i])[0], [*range(30)] * 20)) == one_by_one * 20
    assert list(pickle.loads(pickle.dumps(dataset)).read(range(30))) == one_by_one


def test_images_of_many_sizes_have_no_size(odd):
    assert open_dataset("tiny_photos", "train", odd).shape == (None, None, 3)


def test_a_set_with_transparency_is_in_colour(odd):
    dataset = open_dataset("tiny_alpha", "train", odd)
    assert dataset.shape == (8, 6, 3) and dataset.images.shape == (30, 8, 6, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_numbers", "tiny_numbers is not an image classification set: it has"),
        ("tiny_depths", "tiny_depths has images of type uint16, not uint8"),
    ],
)
def test_a_set_of_other_things_is_refused(odd, name, message):
    with pytest.raises(UserError, match=message):
        open_dataset(name, "train", odd)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("fashion_mnis", "train", "unknown data set 'fashion_mnis'; did you mean fashion_mnist?"),
        ("mnist_5", "train", "unknown data set 'mnist_5'; did you mean mnist_5k"),
        ("tiny_shapes", "tset", "unknown split of tiny_shapes 'tset'; did you mean test?"),
        ("tiny_shapes:9.9.9", "train", "unknown version of tiny_shapes '9.9.9'; there are: 1.2.0"),
        ("mnist_5k:9.9.9", "train", "Dataset mnist_5k cannot be loaded at version 9.9.9, only: 1.0.0"),
        ("fashion_mnist", "train", "fashion_mnist is not prepared in"),
        ("fashion_mnist", "train", "--data-dir DIR names where it is, `cnn-jax prepare fashion_mnist` fetches and"),
        ("mnist_5k:abc", "train", "mnist_5k has no version 'abc'; a version is like 1.0.0"),
        ("MNIST_5K", "train", "unknown data set 'MNIST_5K'; did you mean mnist_5k"),
        ("no such", "train", "cannot open data set 'no such'"),
        ("", "train", "the data set has no name; names are like"),
    ],
)
def test_a_wrong_name_is_one_quick_line(tiny, monkeypatch, name, split, message):
    """TFDS alone would ask the network for minutes."""
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **how: asked.append(where) or [])
    with pytest.raises(UserError) as error:
        open_dataset(name, split, tiny)
    assert asked == []
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_directory_is_told(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a directory; name the one that holds fashion_mnist/"):
        open_dataset("fashion_mnist", "train", tmp_path / "nowhere")


def test_a_version_folder_without_its_info_is_refused(tmp_path):
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    with pytest.raises(UserError, match=r"3.0.1 is no whole data set \(no dataset_info.json\)"):
        open_dataset("mnist", "test", tmp_path)


# ----- damaged files


@pytest.fixture
def copy(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "copy")
    return tmp_path / "copy"


def shard_of(folder: Path) -> Path:
    return next((folder / "tiny_shapes" / "1.2.0").glob("*train*array_record*"))


def cut(shard):
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def cut_a_byte(shard):
    shard.write_bytes(shard.read_bytes()[:-1])


def zero(shard):
    shard.write_bytes(bytes(shard.stat().st_size))


def empty(shard):
    shard.write_bytes(b"")


def another(shard):
    shutil.copy(str(shard).replace("train", "test"), shard)


@pytest.mark.parametrize("damage", [cut, cut_a_byte, zero, empty, another])
def test_a_damaged_file_is_told_before_training_begins(copy, damage):
    shard = shard_of(copy)
    damage(shard)
    with pytest.raises(UserError) as error:
        open_dataset("tiny_shapes", "train", copy)
    found = 20 if damage is another else 0
    assert str(error.value).startswith(f"{shard} is cut short or damaged: it has {found} records, not 30")
    assert len(open_dataset("tiny_shapes", "test", copy)) == 20


def test_a_record_that_is_damaged_is_found_among_others(copy):
    shard = shard_of(copy)
    whole = open_dataset("tiny_shapes", "train", copy).read(range(30))
    content = bytearray(shard.read_bytes())
    place = content.index(whole[17][0][-40:])  # in the middle of the image of record 17
    content[place : place + 20] = bytes(20)
    shard.write_bytes(content)
    dataset = open_dataset("tiny_shapes", "train", copy)
    with pytest.raises(BadImage):
        dataset.read(range(30))
    with pytest.raises(BadImage, match=r"cannot be read \(Corrupted Riegeli/records file"):
        dataset.read([17])
    found = dataset.read_each(range(30))
    assert [i for i, record in enumerate(found) if isinstance(record, BadImage)] == [17]
    assert found[:17] + found[18:] == [*whole[:17], *whole[18:]]
    with pytest.raises(UserError) as error:
        dataset.images
    assert str(error.value).startswith(f"record 17 of {shard} cannot be read (")
    assert dataset.fingerprint.startswith("30 images")


def test_a_record_of_another_kind_is_a_bad_image(copy):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(shard_of(copy)), "group_size:1")
    for content in [b"no example", b"\n\x00", *[b"\n\x00"] * 28]:
        writer.write(content)
    writer.close()
    found = open_dataset("tiny_shapes", "train", copy).read_each([0, 1])
    assert all(isinstance(record, BadImage) for record in found)


@pytest.mark.parametrize(("name", "label"), [("tiny_below", -1), ("tiny_beyond", 3)])
def test_labels_out_of_range_are_told(odd, name, label):
    dataset = open_dataset(name, "test", odd)
    with pytest.raises(UserError, match=rf"record 7 of .* has label {label}, not 0 to 2; is test a split without lab"):
        dataset.labels


def test_a_tfrecord_directory_is_told_how_to_convert(copy):
    version = copy / "tiny_shapes" / "1.2.0"
    info = json.loads((version / "dataset_info.json").read_text())
    (version / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="holds tfrecord files.*convert them once") as error:
        open_dataset("tiny_shapes", "train", copy)
    assert f"--dataset_version_dir={version} " in str(error.value) and "\n" not in str(error.value)
    module = Path(importlib.util.find_spec("tensorflow_datasets.scripts.convert_format").origin).read_text()
    flags = re.findall(r"--(\w+)=", str(error.value))
    assert flags == ["dataset_version_dir", "out_file_format"]
    assert all(f"'{flag}'" in module for flag in flags)
    # That command leaves both formats in one folder.
    both = info | {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    (version / "dataset_info.json").write_text(json.dumps(both))
    assert len(open_dataset("tiny_shapes", "train", copy).images) == 30


def test_a_known_set_in_both_formats_is_read(tmp_path):
    write_idx_set(tmp_path / "raw")
    version = Path(prepare_set("mnist", tmp_path, tmp_path / "raw").data_dir)
    info = json.loads((version / "dataset_info.json").read_text())
    both = info | {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    (version / "dataset_info.json").write_text(json.dumps(both))
    assert len(open_dataset("mnist", "train", tmp_path).images) == 30


# ----- gs://


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A bucket with fashion_mnist in tfds/, and what a process needs to reach it."""
    folder = tmp_path_factory.mktemp("gcs")
    write_idx_set(folder / "raw")
    prepare_set("fashion_mnist", folder / "bucket" / "tfds", folder / "raw")
    with serve(folder) as environment:
        yield folder / "bucket", os.environ | environment


def on_gs(environment, code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=SAFETY)
    return done.returncode, done.stdout, done.stderr


def test_a_set_on_gs_is_read_as_one_on_disk(bucket):
    folder, environment = bucket
    code = (
        "import sys, cnn_jax\n"
        "d = cnn_jax.open_dataset('fashion_mnist', 'train[:50%]+test', 'gs://bucket/tfds')\n"
        "print(d.fingerprint, d.labels.tolist(), int(d.images.sum()), d.place(20), 'tensorflow' in sys.modules)"
    )
    local = open_dataset("fashion_mnist", "train[:50%]+test", folder / "tfds")
    place = "record 5 of gs://bucket/tfds/fashion_mnist/3.0.1/fashion_mnist-test.array_record-00000-of-00001"
    expected = f"{local.fingerprint} {local.labels.tolist()} {local.images.sum()} {place} False"
    assert on_gs(environment, code) == (0, f"{expected}\n", "")


def test_what_is_not_on_gs_is_one_line(bucket):
    code = (
        "import cnn_jax\n"
        "from cnn_jax.data.prepare import prepare\n"
        "for ask in (lambda: cnn_jax.open_dataset('mnist', 'train', 'gs://bucket/tfds'),\n"
        "            lambda: cnn_jax.open_dataset('mnist', 'train', 'gs://bucket/nowhere'),\n"
        "            lambda: prepare('mnist', 'gs://bucket/tfds')):\n"
        "    try:\n        ask()\n"
        "    except cnn_jax.UserError as error:\n        print(error)\n"
    )
    returncode, stdout, stderr = on_gs(bucket[1], code)
    assert (returncode, stderr) == (0, "")
    unprepared, nowhere, unwritable = stdout.splitlines()
    assert "mnist is not prepared in gs://bucket/tfds/mnist/3.0.1; --data-dir DIR names where it is" in unprepared
    assert nowhere == "gs://bucket/nowhere is not there, or holds nothing"
    assert unwritable.startswith("mnist cannot be prepared in gs://bucket/tfds/mnist/3.0.1; prepare it on a disk and")


def test_gs_without_a_network_is_told_and_not_tried_again():
    """gcsfs alone would try for most of a minute, and sleep in between."""
    environment = os.environ | {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"}
    code = (
        "import asyncio, time, cnn_jax\n"
        "asyncio.sleep = time.sleep = None\n"
        "cnn_jax.open_dataset('mnist', 'train', 'gs://bucket/tfds')"
    )
    stderr = on_gs(environment, code)[2]
    assert "Unavailable: cannot reach gs://bucket/tfds: <urlopen error [Errno 111] Connection refused>" in stderr


def test_gs_without_gcsfs_names_the_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "gcsfs" else found(name, *a))
    with pytest.raises(UserError, match=r"gs://bucket/tfds needs gcsfs: pip install 'cnn-jax\[gcs\]'"):
        open_dataset("mnist", "train", "gs://bucket/tfds")


def test_classes_and_shape_are_the_builders(data_dir):
    open_dataset("mnist_5k", "test", data_dir)
    collection = open_tfds(find_builder("mnist_5k", data_dir), "digits")
    assert (collection.name, list(collection.splits), collection.shape) == ("digits", ["train", "test"], (28, 28, 1))
