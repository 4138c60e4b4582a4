"""What compiled code of our own computes, against NumPy in float64; and machines that lack something for it."""

import os
import shutil
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest
from quick_jit import quick_jit

from cnn_jax.layers import lowering, native
from cnn_jax.layers.geometry import PLAIN, Geometry
from cnn_jax.layers.windows import window_max

# Where both are here the code must compile.
here = native._installed() and any(map(shutil.which, ("c++", "g++", "clang++")))
ready = native.ready()
needed = pytest.mark.skipif(not here, reason="oneDNN or a C++ compiler is not here")


@needed
def test_the_code_compiles():
    assert ready


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@needed
@pytest.mark.parametrize(("groups", "rows", "channels"), [(1, 1, 3), (3, 63, 5), (1, 1000, 17), (2, 4097, 8)])
def test_moments_and_sums_are_those_of_float64(groups, rows, channels):
    x, g = numbers(groups, rows, channels) + 100, numbers(groups, rows, channels, seed=1)
    mean, var = jax.jit(native.moments)(x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(1), rtol=1e-6)
    np.testing.assert_allclose(var, wide.var(1), rtol=1e-5, atol=1e-9)  # a mean of 100 deviations costs nothing
    products, total = jax.jit(native.sums)(x, g)
    of = np.abs(wide * g).sum(1).max()
    np.testing.assert_allclose(products, (wide * g).sum(1), atol=1e-6 * of)
    np.testing.assert_allclose(total, g.astype(np.float64).sum(1), atol=1e-6 * of)


@needed
def test_a_window_of_nans_and_ties():
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 3, 3] = np.nan
    geometry = Geometry((4, 4), (2, 2), (2, 2), ((0, 0), (0, 0)), 1)
    y = jax.jit(lambda x: native.window_max(x, geometry=geometry))(x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 0], [0, np.nan]])
    x[0, 3, 3] = 0
    grad = jax.jit(lambda g, x: native.window_max_grad(g, x, geometry=geometry))(np.ones((1, 2, 2, 1), np.float32), x)
    np.testing.assert_array_equal(grad[0, :, :, 0], np.tile([[1, 0], [0, 0]], (2, 2)))  # to the first of equals


@needed
@pytest.mark.parametrize("channels", [1, 3, 6, 7, 14, 25])
@pytest.mark.parametrize(
    ("size", "window", "stride", "pads"),
    [
        ((6, 41), (2, 2), (2, 2), ((0, 0), (0, 0))),  # an odd column is in no window
        ((9, 30), (3, 3), (2, 2), ((0, 0), (0, 0))),
        ((9, 30), (3, 3), (2, 2), ((1, 1), (1, 1))),
        ((6, 40), (2, 2), (2, 3), ((0, 0), (0, 0))),  # nor is every third
        ((5, 24), (3, 1), (1, 1), ((1, 1), (0, 0))),
    ],
)
def test_maxima_of_any_channels_and_their_gradient(size, window, stride, pads, channels):
    geometry = Geometry(size, window, stride, pads, channels)
    x = numbers(3, *size, channels)
    g = numbers(3, *geometry.out, channels, seed=1)
    y, dx = jax.jit(lambda x, g: (window_max(x, geometry), native.window_max_grad(g, x, geometry=geometry)))(x, g)
    with lowering("xla"):
        expected, back = jax.vjp(jax.jit(lambda x: window_max(x, geometry)), x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(dx, back(g)[0], rtol=1e-6, atol=1e-6)


@needed
@pytest.mark.parametrize("batch", [5, 11, 37])  # fewer and more than a register has lanes, and none a multiple
@pytest.mark.parametrize(
    ("size", "window", "pads", "channels", "features", "dilation"),
    [
        ((32, 32), (5, 5), ((0, 0), (0, 0)), 1, 6, (1, 1)),  # LeNet-5's
        ((14, 14), (5, 5), ((0, 0), (0, 0)), 6, 16, (1, 1)),
        ((11, 17), (4, 3), ((2, 0), (1, 2)), 5, 7, (1, 1)),
        ((12, 10), (1, 1), ((0, 0), (0, 0)), 16, 10, (1, 1)),
        ((9, 14), (3, 3), ((2, 2), (2, 2)), 14, 9, (1, 1)),
        ((14, 17), (3, 3), ((2, 2), (2, 2)), 6, 10, (1, 2)),  # oneDNN's own
        ((9, 14), (3, 3), ((3, 3), (3, 3)), 6, 10, (1, 1)),
    ],
)
def test_convolutions_over_few_channels(size, window, pads, channels, features, dilation, batch):
    geometry = Geometry(size, window, (1, 1), pads, 1, dilation)
    x, w = numbers(batch, *size, channels), numbers(*window, channels, features)
    g = numbers(batch, *geometry.out, features)
    for name, arrays in {"conv": (x, w), "input_grad": (g, w), "kernel_grad": (x, g)}.items():
        found = jax.jit(partial(native.convolution, name, geometry))(*arrays)
        expected = quick_jit(partial(PLAIN[name], geometry=geometry))(*arrays)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


BITS = """
import hashlib, os, sys
if sys.argv[1] == "one":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from functools import partial
import jax, numpy as np
from cnn_jax.layers import native
from cnn_jax.layers.geometry import Geometry
assert native.ready()
numbers = lambda *shape: np.random.default_rng(0).standard_normal(shape).astype(np.float32)
square = lambda size: Geometry((size, size), (3, 3), (1, 1), ((1, 1), (1, 1)), 1, (1, 1))
if sys.argv[1] == "onednn":
    conv = jax.jit(partial(native.convolution, "conv", square(8)))
    jax.block_until_ready(conv(numbers(1, 8, 8, 32), numbers(3, 3, 32, 32)))
found = [jax.jit(native.moments)(numbers(1, 9000, 7)), jax.jit(native.sums)(numbers(1, 9000, 7), numbers(1, 9000, 7))]
for features in (6, 12):
    grad = jax.jit(partial(native.convolution, "kernel_grad", square(14)))
    found.append(grad(numbers(70, 14, 14, 3), numbers(70, 14, 14, features)))
print(hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in jax.tree.leaves(found))).hexdigest())
"""


@needed
def test_bits_depend_neither_on_how_many_threads_there_are_nor_on_whose():
    """All cores by XLA's threads, one core, and OpenMP's threads once oneDNN has computed."""
    runs = [
        subprocess.run([sys.executable, "-c", BITS, kind], capture_output=True, text=True, check=True)
        for kind in ("all", "one", "onednn")
    ]
    assert len({run.stdout for run in runs}) == 1 and len(runs[0].stdout) == 65


@needed
def test_a_convolution_that_onednn_refuses_is_an_error_and_no_crash():
    impossible = Geometry((3, 3), (2, 2), (1, 1), ((0, 0), (0, 0)), 2)  # 3 channels in 2 groups
    call = jax.jit(lambda x, w: native.convolution("conv", impossible, x, w))
    with pytest.raises(Exception, match="oneDNN"):
        jax.block_until_ready(call(numbers(1, 3, 3, 3), numbers(2, 2, 2, 4)))


def python(code, **environment):
    env = os.environ | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)


def test_without_a_compiler_one_line_says_so_and_xla_computes(tmp_path):
    code = "import jax.numpy as jnp; from cnn_jax.layers.conv import convolve; from cnn_jax.layers import native; "
    code += "print(convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1)))[0, 0, 0, 0], native.ready())"
    done = python(code, CXX="/no/such/compiler", XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout == "4.0 False\n"
    told = [line for line in done.stderr.splitlines() if "oneDNN" in line]
    expected = "oneDNN is not used, XLA computes: [Errno 2] No such file or directory: '/no/such/compiler'"
    assert told == ([expected] if native._installed() else [])


def test_a_compiler_that_fails_is_quoted(tmp_path):
    failing = tmp_path / "c++"
    failing.write_text("#!/bin/sh\necho 'error: no headers' >&2\nexit 1\n")
    failing.chmod(0o755)
    done = python("from cnn_jax.layers import native; native.ready()", CXX=str(failing), XDG_CACHE_HOME=str(tmp_path))
    if native._installed():
        assert f"oneDNN is not used, XLA computes: {failing} fails: error: no headers\n" in done.stderr
        assert not list(tmp_path.rglob("*.so"))


def test_without_the_package_nothing_is_said(monkeypatch, capsys):
    monkeypatch.setattr(native, "PACKAGES", {"no-such-package": "none"})
    assert native.ready.__wrapped__() is False and capsys.readouterr() == ("", "")
