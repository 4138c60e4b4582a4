import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tfds_sets import builder_code, prepare

from cnn_jax import UserError, open_dataset


def test_any_prepared_tfds_set_is_read_by_name(tiny):
    dataset = open_dataset("tiny_shapes", "test", tiny)
    np.testing.assert_array_equal(dataset.images, np.random.default_rng(20).integers(0, 256, (20, 8, 6, 3), np.uint8))
    assert dataset.labels.tolist() == [i % 3 for i in range(20)]
    assert dataset.classes == ("disc", "square", "star")
    assert len(open_dataset("tiny_shapes:1.2.0", "train", tiny)) == 30


def test_tensorflow_is_not_imported(tiny):
    script = (
        f"import sys, cnn_jax; cnn_jax.open_dataset('tiny_shapes', 'train', {str(tiny)!r});"
        "print('tensorflow' in sys.modules, 'jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("fashion_mnis", "train", "unknown data set 'fashion_mnis'; did you mean fashion_mnist?"),
        ("mnist_5", "train", "unknown data set 'mnist_5'; did you mean mnist_5k"),
        ("tiny_shapes", "tset", "unknown split of tiny_shapes 'tset'; did you mean test?"),
        ("tiny_shapes:9.9.9", "train", "unknown version of tiny_shapes '9.9.9'; there are: 1.2.0"),
        ("mnist_5k:9.9.9", "train", "Dataset mnist_5k cannot be loaded at version 9.9.9, only: 1.0.0"),
        ("fashion_mnist", "train", "fashion_mnist is not prepared in"),
        ("mnist_5k:abc", "train", "mnist_5k has no version 'abc'; a version is like 1.0.0"),
        ("MNIST_5K", "train", "unknown data set 'MNIST_5K'; did you mean mnist_5k"),
        ("no such", "train", "cannot open data set 'no such'"),
    ],
)
def test_a_wrong_name_is_one_quick_line(tiny, name, split, message):
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        open_dataset(name, split, tiny)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert time.monotonic() - start < 10  # TFDS alone would ask the network for minutes


def test_a_missing_directory_is_told(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a directory; name the one that holds fashion_mnist/"):
        open_dataset("fashion_mnist", "train", tmp_path / "nowhere")


def damaged(tiny, tmp_path, change):
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    (folder / "downloads").exists() and shutil.rmtree(folder / "downloads")
    change(folder / "tiny_shapes" / "1.2.0")
    return folder


def cut_shard(version):
    shard = next(version.glob("*train*array_record*"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def zero_shard(version):
    shard = next(version.glob("*train*array_record*"))
    shard.write_bytes(bytes(shard.stat().st_size))


def remove_shard(version):
    next(version.glob("*train*array_record*")).unlink()


def say_tfrecord(version):
    info = json.loads((version / "dataset_info.json").read_text())
    (version / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))


@pytest.mark.parametrize("damage", [cut_shard, zero_shard, remove_shard, say_tfrecord])
def test_damaged_files_are_told_in_one_line(tiny, tmp_path, damage):
    folder = damaged(tiny, tmp_path, damage)
    with pytest.raises(UserError) as error:
        open_dataset("tiny_shapes", "train", folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_a_tfrecord_directory_is_told_how_to_convert(tiny, tmp_path):
    folder = damaged(tiny, tmp_path, say_tfrecord)
    with pytest.raises(UserError, match="holds tfrecord files.*convert them once") as error:
        open_dataset("tiny_shapes", "train", folder)
    module = Path(importlib.util.find_spec("tensorflow_datasets.scripts.convert_format").origin).read_text()
    flags = re.findall(r"--(\w+)=", str(error.value))
    assert flags == ["dataset_version_dir", "out_file_format", "out_dir"]
    assert all(f"'{flag}'" in module for flag in flags)


def test_images_of_many_sizes_are_refused_for_now(tmp_path):
    prepare(tmp_path, "tiny_photos", shape=(None, None, 3))
    with pytest.raises(UserError, match="tiny_photos has images of shape .*one fixed size"):
        open_dataset("tiny_photos", "train", tmp_path)


def test_a_set_without_class_labels_is_refused(tmp_path):
    prepare(tmp_path, "tiny_numbers", label="Scalar(np.int64)")
    with pytest.raises(UserError, match="tiny_numbers is not an image classification set"):
        open_dataset("tiny_numbers", "train", tmp_path)


def test_mnist_5k_needs_no_tfds(monkeypatch, data_dir):
    with_tfds = open_dataset("mnist_5k", "test", data_dir)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    without = open_dataset("mnist_5k", "test")
    np.testing.assert_array_equal(with_tfds.images, without.images)
    np.testing.assert_array_equal(with_tfds.labels, without.labels)
    with pytest.raises(UserError, match="'cifar10' needs tensorflow-datasets"):
        open_dataset("cifar10", "train")
    with pytest.raises(UserError, match="unknown split of mnist_5k"):
        open_dataset("mnist_5k", "validation")


def test_leftovers_of_a_killed_preparation_do_not_pass_for_a_data_set(tmp_path):
    (tmp_path / "mnist_5k" / "incomplete.ABC_1.0.0").mkdir(parents=True)
    assert len(open_dataset("mnist_5k", "test", tmp_path)) == 1_000


def test_a_version_folder_without_its_info_is_refused(tmp_path):
    (tmp_path / "mnist_5k" / "1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"1.0.0 is no whole data set \(no dataset_info.json\)"):
        open_dataset("mnist_5k", "test", tmp_path)


def test_two_processes_may_prepare_at_once(tmp_path):
    script = f"import cnn_jax; print(len(cnn_jax.open_dataset('mnist_5k', 'train', {str(tmp_path)!r})))"
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].split()[-1] for process in both] == ["4000", "4000"]


def run_script(code, folder):
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_download_prepares_a_set_that_is_not_there(tmp_path):
    """A builder that TFDS knows by name; in place of a download it draws its images."""
    code = (
        builder_code("tiny_download", prepare_now=False)
        + """
import cnn_jax
ask = lambda split, **options: cnn_jax.open_dataset("tiny_download", split, sys.argv[1], **options)
try:
    ask("train")
except cnn_jax.UserError as error:
    print(error)
print(len(ask("train", download=True)), len(ask("test")), "tensorflow" in sys.modules)
"""
    )
    first, *_, last = run_script(code, tmp_path)
    assert "tiny_download is not prepared in" in first
    assert "--download fetches and prepares it" in first
    assert last == "30 20 False"


def test_a_set_that_needs_tensorflow_to_be_prepared_says_how(tmp_path):
    code = builder_code("tiny_archive", prepare_now=False).replace("return {", "import tensorflow_of_old; return {")
    code += """
import cnn_jax
try:
    cnn_jax.open_dataset("tiny_archive", "train", sys.argv[1], download=True)
except cnn_jax.UserError as error:
    print(error)
"""
    assert "TFDS needs tensorflow_of_old to prepare tiny_archive: run once with" in run_script(code, tmp_path)[-1]


def test_an_unwritable_data_directory_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot prepare mnist_5k in"):
        open_dataset("mnist_5k", "train", tmp_path / "file")


def test_the_default_place_need_not_be_writable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    script = "import cnn_jax; print(len(cnn_jax.open_dataset('mnist_5k', 'train')))"
    env = os.environ | {"TFDS_DATA_DIR": str(tmp_path / "file")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines()[-1] == "4000"


def test_labels_out_of_range_are_told(tmp_path):
    code = builder_code("tiny_unlabelled").replace('"label": i % 3', '"label": -1')
    run_script(code, tmp_path)
    with pytest.raises(UserError, match="tiny_unlabelled test has labels from -1 to -1, not 0 to 2; is it a split wit"):
        open_dataset("tiny_unlabelled", "test", tmp_path)


def test_png_decoding_is_lossless():
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(png)), pixels)
