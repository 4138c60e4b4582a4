import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.layers import adaptive_avg_pool, avg_pool, global_avg_pool, global_pool, max_pool


def oracle(x, k, s, p, ceil_mode, reduce):
    """PyTorch's definition by loops: `reduce` sees a window's pixels and how many count with padding."""
    _, height, width, _ = x.shape

    def outputs(size):
        out = (-(-(size + 2 * p - k) // s) if ceil_mode else (size + 2 * p - k) // s) + 1
        return out - 1 if ceil_mode and (out - 1) * s >= size + p else out

    y = np.zeros((x.shape[0], outputs(height), outputs(width), x.shape[3]))
    for i, j in itertools.product(range(y.shape[1]), range(y.shape[2])):
        top, left = i * s - p, j * s - p
        bottom, right = min(top + k, height + p), min(left + k, width + p)
        window = x[:, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        y[:, i, j] = reduce(window, (bottom - top) * (right - left))
    return y


GEOMETRIES = [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 0), (3, 3, 1), (2, 3, 1)]
SIZES = [(8, 8), (7, 9), (6, 11)]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("k", "s", "p"), GEOMETRIES)
@pytest.mark.parametrize("size", SIZES)
def test_max_pool_matches_a_numpy_oracle(size, k, s, p, ceil_mode):
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32) - 5  # zeros would show
    expected = oracle(x, k, s, p, ceil_mode, lambda window, _: window.max((1, 2)))
    np.testing.assert_array_equal(max_pool(x, k, s, p, ceil_mode), expected.astype(np.float32))


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("k", "s", "p"), GEOMETRIES)
@pytest.mark.parametrize("size", SIZES)
def test_avg_pool_matches_a_numpy_oracle(size, k, s, p, ceil_mode, include):
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)

    def mean(window, padded_count):
        return window.sum((1, 2)) / (padded_count if include else window.shape[1] * window.shape[2])

    expected = oracle(x, k, s, p, ceil_mode, mean)
    np.testing.assert_allclose(avg_pool(x, k, s, p, ceil_mode, include), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "out"), [(112, 56), (56, 28), (28, 14), (14, 7)])
def test_ceil_mode_gives_the_sizes_of_googlenet(size, out):
    assert max_pool(jnp.zeros((1, size, size, 1)), 3, 2, ceil_mode=True).shape[1] == out


def test_stride_defaults_to_the_window():
    assert max_pool(jnp.zeros((1, 9, 9, 1)), 3).shape == avg_pool(jnp.zeros((1, 9, 9, 1)), 3).shape == (1, 3, 3, 1)


def test_pooling_has_a_gradient():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(
        jax.grad(lambda x: max_pool(x, 2).sum())(x)[0, :, :, 0],
        [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]],
    )
    np.testing.assert_allclose(jax.grad(lambda x: avg_pool(x, 2).sum())(x), jnp.full(x.shape, 0.25))


@pytest.mark.parametrize(("size", "out"), [((7, 7), 7), ((12, 12), 6), ((10, 13), 6), ((3, 4), 7)])
def test_adaptive_pool_matches_a_numpy_oracle(size, out):
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    expected = np.zeros((2, out, out, 3))
    for i, j in itertools.product(range(out), range(out)):
        (top, bottom), (left, right) = (
            (int(np.floor(k * n / out)), int(np.ceil((k + 1) * n / out))) for k, n in zip((i, j), size, strict=True)
        )
        expected[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    np.testing.assert_allclose(adaptive_avg_pool(x, out), expected, rtol=1e-5, atol=1e-6)


def test_global_pool_is_the_mean_over_positions():
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(global_avg_pool(x), x.mean((1, 2)), rtol=1e-5, atol=1e-6)
    many = global_avg_pool(jnp.ones((1, 30, 30, 3), jnp.bfloat16))  # added in bfloat16 they would stop at 256
    assert many.dtype == jnp.bfloat16 and (many == 1).all()


def test_global_pools_are_timms():
    """timm 1.0.31: "avgmax" is the mean of both (layers/adaptive_avgmax_pool.py)."""
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)
    mean, most = x.mean((1, 2)), x.max((1, 2))
    for kind, expected in {"avg": mean, "max": most, "avgmax": 0.5 * (mean + most), "": x}.items():
        np.testing.assert_allclose(global_pool(x, kind), expected, rtol=1e-5, atol=1e-6)
