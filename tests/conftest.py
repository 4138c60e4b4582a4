"""Shared by all tests: compiled programs, one folder of prepared data sets, and train.py as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import runs
from tfds_sets import prepare

from cnn_jax.compilation import WORTH_KEEPING, default_folder, make_room
from cnn_jax.platform import HUGE_PAGES
from cnn_jax.storage import caches

# Programs are kept between runs of the tests, for the processes that tests start too. Before anything imports JAX.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(default_folder()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(WORTH_KEEPING))
make_room(default_folder())
# So is Python's bytecode, also where it may not lie beside the sources: each of a hundred processes would compile its
# imports for two seconds.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(caches() / "bytecode"))

# Several processes share the cores: OpenMP's threads sleep while they wait for work, and do not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# As train.py starts itself; here for the workers of pytest and what they start.
os.environ.setdefault("GLIBC_TUNABLES", HUGE_PAGES)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """Where TFDS sets are prepared, once for all tests."""
    return runs.made_once(tmp_path_factory, "tfds", lambda folder: None)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with the TFDS set tiny_shapes: 30 and 20 images of 8x6 in colour, three classes."""
    return runs.made_once(tmp_path_factory, "tiny", prepare)


@pytest.fixture(scope="session")
def train_here(data_dir):
    """Runs train.main in this process, see runs.train_here; returns what a finished process would be."""
    return lambda *options, **how: runs.train_here(*options, data_dir=data_dir, **how)


@pytest.fixture
def train_command(data_dir):
    """The arguments and environment that start train.py as a process of its own."""

    def command(*options, by=()) -> dict:
        return {
            "args": [sys.executable, *map(str, by), str(ROOT / "train.py"), *map(str, options)],
            "env": os.environ | {"TFDS_DATA_DIR": str(data_dir)},
            "cwd": ROOT,
            "text": True,
        }

    return command


@pytest.fixture
def run_train(train_command):
    """Runs train.py to its end and returns the finished process with its output."""

    def run(*options, **changes) -> subprocess.CompletedProcess:
        return subprocess.run(**(train_command(*options) | changes), capture_output=True, timeout=runs.SAFETY)

    return run


@pytest.fixture
def signalled(train_command):
    """Runs train.py as a process that gets a signal at a moment that signalled.py knows; `what` is a pattern."""

    def run(signum, moment, what, *options) -> subprocess.CompletedProcess:
        command = train_command(*options, by=(ROOT / "tests" / "signalled.py", int(signum), moment, what))
        return subprocess.run(**command, capture_output=True, timeout=runs.SAFETY)

    return run


@pytest.fixture
def spied(train_command):
    """The arguments and environment that start train.py with a log of the images that it trains on; see spied.py."""

    def command(log, *options, **environment) -> dict:
        found = train_command()
        script = [sys.executable, str(ROOT / "tests" / "spied.py"), str(log), *map(str, options)]
        return found | {"args": script, "env": found["env"] | environment}

    return command


@pytest.fixture(scope="session")
def whole(tmp_path_factory, data_dir):
    """One uninterrupted short run in a process of its own, with what sys.modules held at its end. Not to be changed."""

    def make(folder):
        script = (
            "import sys, train\n"
            f"code = train.main({[*map(str, runs.SHORT), '--out', str(folder / 'run')]!r})\n"
            "print('MODULES', code, 'tensorflow' in sys.modules, 'torch' in sys.modules)"
        )
        environment = os.environ | {"TFDS_DATA_DIR": str(data_dir)}
        command = {"args": [sys.executable, "-c", script], "cwd": ROOT, "env": environment, "timeout": runs.SAFETY}
        done = subprocess.run(**command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder / "said.json").write_text(json.dumps({"stdout": done.stdout, "stderr": done.stderr}))

    folder = runs.made_once(tmp_path_factory, "whole", make)
    said = json.loads((folder / "said.json").read_text())
    return folder / "run", subprocess.CompletedProcess([], 0, **said)


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory):
    """A ResNet-20 for four classes in a file, and as variables."""
    from small_weights import drawn  # which imports JAX

    return drawn(tmp_path_factory.mktemp("weights"))
