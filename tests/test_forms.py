"""Each form of a convolution and its gradients on a CPU, at shapes that hypothesis draws, against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quick_jit import quick_jit

from cnn_jax.layers import forms
from cnn_jax.layers.geometry import PLAIN, Geometry

FEW, MANY = 4, 60  # programs; each compares two ways
QUIET = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@st.composite
def convolutions(draw):
    """Sizes of a convolution that has an output: batch, geometry, channels and maps of a group."""
    sides = [draw(st.integers(1, 13)) for _ in range(2)]
    window = tuple(draw(st.sampled_from([1, 2, 3, 5, 7])) for _ in range(2))
    window = draw(st.sampled_from([window, (1, 1), (3, 3), tuple(sides)]))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(2))
    pads = tuple(tuple(draw(st.integers(0, k - 1)) for _ in range(2)) for k in window)
    pads = draw(st.sampled_from([pads, ((0, 0), (0, 0))]))
    dilation = tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(2))
    reach = Geometry((1, 1), window, stride, pads, 1, dilation).reach
    size = tuple(max(side, r - sum(pad)) for side, r, pad in zip(sides, reach, pads, strict=True))
    groups = draw(st.sampled_from([1, 1, 2, 8, 64]))
    inner, maps = draw(st.sampled_from([(1, 1), (1, 2), (2, 3), (5, 4)]))
    return draw(st.integers(1, 4)), Geometry(size, window, stride, pads, groups, dilation), inner, maps


def compare(batch, geometry, inner, maps, dtype=np.float32):
    random = np.random.default_rng(0)
    shapes = {
        "x": (batch, *geometry.size, inner * geometry.groups),
        "w": (*geometry.window, inner, maps * geometry.groups),
        "g": (batch, *geometry.out, maps * geometry.groups),
    }
    arrays = {name: jnp.asarray(random.standard_normal(shape), dtype) for name, shape in shapes.items()}
    needs = {"conv": "xw", "input_grad": "gw", "kernel_grad": "xg"}

    @quick_jit
    def both(arrays):
        found = {}
        for name, letters in needs.items():
            two = [arrays[letter] for letter in letters]
            avals = [jax.typeof(one) for one in two]
            wide = [one.astype(jnp.float32) for one in two]
            found[name] = [
                PLAIN[name](*wide, geometry),
                *(
                    forms.choose(name, avals, native=native, whole=whole, geometry=geometry)(*two)
                    for native, whole in ((True, True), (False, True), (False, False))
                ),
            ]
        return found

    for name, (expected, *found) in both(arrays).items():
        size = float(jnp.abs(expected).max())
        for one in found:
            assert one.dtype == dtype and one.shape == expected.shape, (name, geometry)
            rounding = 1e-5 if dtype == np.float32 else 4e-3  # bfloat16 rounds the result alone
            np.testing.assert_allclose(
                one.astype(jnp.float32), expected, atol=rounding * size, err_msg=f"{name} {geometry}"
            )


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_every_form_equals_the_plain_convolution(examples):
    settings(max_examples=examples, **QUIET)(given(convolutions())(lambda drawn: compare(*drawn)))()


@pytest.mark.parametrize(
    ("geometry", "inner", "maps"),
    [
        (Geometry((8, 8), (3, 3), (1, 1), ((1, 1), (1, 1)), 1), 24, 16),
        (Geometry((8, 8), (3, 3), (2, 2), ((1, 1), (1, 1)), 32), 1, 1),
        (Geometry((8, 8), (1, 1), (1, 1), ((0, 0), (0, 0)), 1), 96, 16),
    ],
)
def test_bfloat16_accumulates_in_float32(geometry, inner, maps):
    compare(16, geometry, inner, maps, jnp.bfloat16)


def test_no_loop_over_images_where_devices_divide_them():
    geometry = Geometry((8, 8), (3, 3), (1, 1), ((1, 1), (1, 1)), 6)
    x, g = (jax.ShapeDtypeStruct((4, 8, 8, 6), np.float32) for _ in range(2))

    def loops(whole):
        form = forms.choose("kernel_grad", [x, g], native=False, whole=whole, geometry=geometry)
        return {str(eqn.primitive) for eqn in jax.make_jaxpr(form)(x, g).eqns} & {"scan", "while"}

    assert loops(True) and not loops(False)
