"""Pools at shapes that hypothesis draws: the ways of a CPU against JAX's own."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from quick_jit import quick_jit
from test_forms import QUIET

from cnn_jax.layers import native, windows
from cnn_jax.layers.geometry import Geometry

FEW, MANY = 4, 40
APART = Geometry((6, 4), (3, 2), (3, 2), ((0, 0), (0, 0)), 22)  # no window overlaps another; 16, 4 and 2 channels


@st.composite
def pools(draw):
    """A geometry whose every window sees a pixel, and channels."""
    window = tuple(draw(st.integers(1, 4)) for _ in range(2))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(2))
    pads = tuple(tuple(draw(st.integers(0, k // 2)) for _ in range(2)) for k in window)
    channels = draw(st.sampled_from([1, 3, 17]))
    return Geometry(tuple(draw(st.integers(k, 11)) for k in window), window, stride, pads, channels)


def compare(geometry):
    random = np.random.default_rng(0)
    x = random.integers(-4, 4, (3, *geometry.size, geometry.groups)).astype(np.float32)  # with ties
    g = random.standard_normal((3, *geometry.out, geometry.groups)).astype(np.float32)
    own = [(native.window_max, native.window_max_grad)] if native.ready() else []

    @quick_jit
    def both(x, g):
        maxima = [(windows._max, windows._max_grad), (windows._shifted_max, windows._shifted_max_grad), *own]
        sums = [(windows._sum, windows._sum_grad), (windows._shifted_sum, windows._shifted_sum_grad)]
        dx = jnp.cos(x)
        return (
            [(f(x, geometry=geometry), grad(g, x, geometry=geometry)) for f, grad in maxima],
            [(f(x, geometry=geometry), grad(g, geometry=geometry)) for f, grad in sums],
            [f(dx, x, geometry=geometry) for f in (windows._max_tangent, windows._shifted_tangent)],
        )

    maxima, sums, tangents = both(x, g)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5, err_msg=str(geometry))
    for found, grad in maxima[1:]:
        np.testing.assert_array_equal(found, maxima[0][0])
        close(grad, maxima[0][1])
    close(sums[1][0], sums[0][0])
    close(sums[1][1], sums[0][1])
    close(tangents[1], tangents[0])


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_every_way_of_a_pool_equals_that_of_jax(examples):
    settings(max_examples=examples, **QUIET)(example(APART)(given(pools())(compare)))()
