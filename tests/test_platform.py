"""What XLA is told before it starts, and that it heeds it."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import platform
from cnn_jax.platform import DETERMINISTIC, add_flags, always

FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"


@pytest.fixture
def flags(monkeypatch):
    """Where JAX has not started: calls add_flags with these XLA_FLAGS, gives what they are then and what it says."""
    monkeypatch.delitem(sys.modules, "jax._src.xla_bridge")

    def added(own, flags):
        monkeypatch.setenv("XLA_FLAGS", own)
        told = add_flags(flags)
        return os.environ["XLA_FLAGS"], told

    return added


def python(code, **environment):
    """Runs code in a fresh interpreter without flags of ours; what it prints."""
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1], done.stderr


def test_sums_inside_of_a_fusion_are_right():
    """jax-ml/jax#39103: in jaxlib 0.10.2 a fifth of these rows is wrong, by up to a factor of a thousand."""
    matrix = np.array([[0.2, 0.5, 0.3], [0.1, -0.4, 0.9], [0.7, 0.3, -0.2]], np.float32)
    rows = np.random.default_rng(0).random((40_001, 3), np.float32)
    sums = jax.jit(jax.vmap(lambda row: ((jnp.asarray(matrix) @ row) ** 2).sum()))(rows)
    expected = ((rows.astype(np.float64) @ matrix.T.astype(np.float64)) ** 2).sum(1)
    np.testing.assert_allclose(sums, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("version", "flags"),
    [("0.10.2", 2), ("0.11.1", 2), ("0.12.0.1", 1), ("0.12.0.dev20261101", 1), ("0.9", 2), ("1.0", 1)],
)
def test_sums_are_kept_out_of_fusions_where_the_compiler_needs_it(version, flags, monkeypatch):
    monkeypatch.setattr(platform.metadata, "version", lambda name: version)
    (left_out,) = always().values()
    assert left_out == ("-reduce,-individual_convolution", "-individual_convolution")[2 - flags]


def test_nothing_is_asked_of_a_jaxlib_that_is_not_there(monkeypatch):
    def missing(name):
        raise platform.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(platform.metadata, "version", missing)
    assert always() == {}


def test_flags_join_those_of_the_user_whose_own_win(flags):
    assert flags("", {"xla_a": "1", "xla_b": "true"}) == ("--xla_a=1 --xla_b=true", [])
    assert flags(" --xla_b=false --xla_c ", {"xla_a": "1", "xla_b": "true"}) == (
        "--xla_b=false --xla_c --xla_a=1",
        ["--xla_b=false"],
    )
    for same in ("--xla_b", "--xla_b=True", "--xla_b=1"):
        assert flags(same, {"xla_b": "true"}) == (same, [])


def test_a_file_of_flags_becomes_its_text(flags, tmp_path):
    (tmp_path / "flags").write_text("--xla_b=2\n--xla_c=3\n")
    assert flags(str(tmp_path / "flags"), {"xla_a": "1", "xla_b": "1"}) == (
        "--xla_b=2\n--xla_c=3 --xla_a=1",
        ["--xla_b=2"],
    )
    assert flags("no file", {"xla_a": "1"}) == ("no file", [])


def test_a_flag_that_comes_too_late_is_told_and_not_set(monkeypatch):
    """XLA would not heed it, and JAX's cache would keep programs under a name that is not theirs."""
    jnp.zeros(1).block_until_ready()
    monkeypatch.setenv("XLA_FLAGS", "--xla_c=3")
    with pytest.warns(
        UserWarning, match="^JAX runs already, without --xla_cpu_a=1: import cnn_jax before its first use$"
    ):
        add_flags({"xla_cpu_a": "1", "xla_gpu_b": "2"})
    assert add_flags({"xla_gpu_b": "2"}) == []  # of devices that are not here
    assert os.environ["XLA_FLAGS"] == "--xla_c=3"


def test_import_sets_the_flags_before_jax_starts_and_never_over_a_users_own():
    show = "import os; print(os.environ.get('XLA_FLAGS', ''))"
    ours = " ".join(f"--{name}={value}" for name, value in always().items())
    assert python(f"import cnn_jax; {show}") == ([ours], "")
    assert python(f"import jax, cnn_jax; {show}") == ([ours], "")
    own = f"{FUSIONS}=-individual_convolution"
    assert python(f"import cnn_jax; {show}", XLA_FLAGS=own) == ([own], "")


def test_train_asks_for_fixed_kernels_where_the_recipe_does(train_here, monkeypatch):
    asked = []
    monkeypatch.setattr(platform, "add_flags", lambda flags: asked.append(flags) or ["--xla_gpu_autotune_level=4"])
    stopped = ("--epochs", 1, "--profile", "99:100")  # before anything is compiled
    told = "XLA_FLAGS keeps --xla_gpu_autotune_level=4: on a GPU --deterministic is not to be had so\n"
    assert train_here("--deterministic", *stopped).stdout.startswith(told) and asked == [DETERMINISTIC]
    assert "XLA_FLAGS" not in train_here(*stopped).stdout and asked == [DETERMINISTIC]


def test_this_jaxlib_knows_every_flag():
    """It ends the process at one that it does not know."""
    told = "from cnn_jax.platform import *; add_flags(always() | DETERMINISTIC)"
    assert python(f"{told}; import jax; print(jax.jit(abs)(-3))")[0] == ["3"]
    assert set(DETERMINISTIC) == {"xla_gpu_deterministic_ops", "xla_gpu_autotune_level"}


PAGES = """
import os, sys
from pathlib import Path
from cnn_jax import platform
platform.OFFERED = Path(sys.argv[1])
print("start", flush=True)
platform.ask_for_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[2:], flush=True)
"""


@pytest.mark.parametrize(
    ("offered", "own", "starts", "then"),
    [
        ("always [madvise] never", None, 2, "glibc.malloc.hugetlb=1"),
        ("always [madvise] never", "glibc.malloc.check=1", 2, "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        ("always [madvise] never", "glibc.malloc.hugetlb=0", 1, "glibc.malloc.hugetlb=0"),
        ("[always] madvise never", None, 1, "None"),
        (None, None, 1, "None"),
    ],
)
def test_a_process_starts_anew_once_where_large_pages_are_to_be_asked_for(tmp_path, offered, own, starts, then):
    if offered is not None:
        (tmp_path / "enabled").write_text(offered)
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    env |= {} if own is None else {"GLIBC_TUNABLES": own}
    command = [sys.executable, "-c", PAGES, tmp_path / "enabled", "a b", "--c"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["start"] * starts + [f"{then} ['a b', '--c']"]


@pytest.mark.parametrize("version", ["0.7.2", "0.8.1"])
def test_a_jaxlib_that_does_not_know_the_flag_is_not_given_it(version, monkeypatch):
    """XLA ends the process at a flag that it does not know; Colab had jaxlib 0.7.2 in August 2026."""
    monkeypatch.setattr(platform.metadata, "version", lambda name: version)
    assert always() == {}
