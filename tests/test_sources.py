import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnn_jax import UserError, open_dataset
from cnn_jax.data import mnist_5k


def test_every_kind_of_source_is_opened_by_its_name(tiny, tmp_path, data_dir):
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cats" / "a.png")
    np.savez(tmp_path / "a.npz", x_train=np.zeros((2, 4, 4), np.uint8), y_train=[0, 1])
    for name, place, size in (
        ("tiny_shapes", tiny, 30),
        ("mnist_5k", data_dir, 4_000),
        (f"folder:{tmp_path}", None, 1),
        (str(tmp_path / "a.npz"), None, 2),
        ("synthetic:8x8x2", None, 10_000),
    ):
        dataset = open_dataset(name, "train", place)
        assert (dataset.name, dataset.split, len(dataset)) == (name, "train", size)
        assert len(dataset.read([0])) == 1 and dataset.shape[2] in (1, 3)
        assert open_dataset(name, "train[:1]", place).fingerprint.startswith("1 images, crc32 ")


def test_neither_tensorflow_nor_jax_is_imported(tiny):
    script = (
        "import sys, cnn_jax\n"
        f"for name in ('tiny_shapes', 'synthetic:8x8x2'):\n"
        f"    dataset = cnn_jax.open_dataset(name, 'train[:10]', {str(tiny)!r})\n"
        "    dataset.images, dataset.fingerprint\n"
        "print('tensorflow' in sys.modules, 'jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_arrays_need_no_tfds():
    script = (
        "import sys, cnn_jax; cnn_jax.open_dataset('synthetic:8x8x2', 'train').read([0]);"
        "print('tensorflow_datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split() == ["False"]


WITHOUT_TFDS = """
import importlib.util, sys
sys.modules["tensorflow_datasets"] = None
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == "tensorflow_datasets" else found(name, *args)
import cnn_jax
"""


def test_mnist_5k_needs_no_tfds(data_dir):
    code = WITHOUT_TFDS + (
        "print(cnn_jax.open_dataset('mnist_5k', 'test[:50%]').fingerprint)\n"
        "for name, split in (('cifar10', 'train'), ('mnist_5k', 'validation')):\n"
        "    try:\n        cnn_jax.open_dataset(name, split)\n"
        "    except cnn_jax.UserError as error:\n        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        open_dataset("mnist_5k", "test[:50%]", data_dir).fingerprint,
        "data set 'cifar10' needs tensorflow-datasets: pip install tensorflow-datasets",
        "unknown split of mnist_5k 'validation'; there are: test, train",
    ]


def test_leftovers_of_a_killed_preparation_do_not_pass_for_a_data_set(tmp_path):
    (tmp_path / "mnist_5k" / "incomplete.ABC_1.0.0").mkdir(parents=True)
    assert len(open_dataset("mnist_5k", "test", tmp_path)) == 1_000


def test_an_unwritable_data_directory_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot prepare mnist_5k in .*; --data-dir DIR names another place"):
        open_dataset("mnist_5k", "train", tmp_path / "file")


def test_the_default_place_need_not_be_writable(tmp_path):
    (tmp_path / "file").write_text("")
    script = "import cnn_jax; print(cnn_jax.open_dataset('mnist_5k', 'train').images.sum())"
    env = os.environ | {"TFDS_DATA_DIR": str(tmp_path / "file")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines()[-1] == str(mnist_5k.read_split("train")[0].sum())


def test_download_prepares_what_is_not_there_or_says_why_not(tmp_path):
    env = os.environ | {"https_proxy": "http://127.0.0.1:9"}  # no network
    script = (
        "import cnn_jax\n"
        "try:\n"
        f"    cnn_jax.open_dataset('mnist', 'train', {str(tmp_path / 'new')!r}, download=True)\n"
        "except cnn_jax.UserError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert "cannot fetch https://storage.googleapis.com/cvdf-datasets/mnist/" in done.stdout.splitlines()[-1]
