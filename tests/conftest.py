"""Shared by all tests: compiled programs, one folder of prepared data sets, and train.py as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import SHORT
from tfds_sets import prepare

from cnn_jax.compilation import WORTH_KEEPING, default_folder

# Programs are kept between runs of the tests, for the processes that tests start too. Before anything imports JAX.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(default_folder()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(WORTH_KEEPING))

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """Where TFDS sets are prepared, once a session."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with the TFDS set tiny_shapes: 30 and 20 images of 8x6 in colour, three classes."""
    return prepare(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def train_command(data_dir):
    """The arguments and environment that start train.py as a process of its own."""

    def command(*options) -> dict:
        return {
            "args": [sys.executable, str(ROOT / "train.py"), *map(str, options)],
            "env": os.environ | {"TFDS_DATA_DIR": str(data_dir)},
            "cwd": ROOT,
            "text": True,
        }

    return command


@pytest.fixture
def run_train(train_command):
    """Runs train.py to its end and returns the finished process with its output."""

    def run(*options, **changes) -> subprocess.CompletedProcess:
        return subprocess.run(**(train_command(*options) | changes), capture_output=True, timeout=600)

    return run


@pytest.fixture(scope="session")
def whole(tmp_path_factory, data_dir):
    """One uninterrupted short run, with what sys.modules held at its end."""
    out = tmp_path_factory.mktemp("whole") / "run"
    script = (
        "import sys, train\n"
        f"code = train.main({[*map(str, SHORT), '--out', str(out)]!r})\n"
        "print('MODULES', code, 'tensorflow' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TFDS_DATA_DIR": str(data_dir)},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return out, done
