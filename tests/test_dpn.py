import numpy as np
import pytest
from quick_jit import quick_apply, quick_init

from cnn_jax import create_model, model_info
from cnn_jax.models.dpn import DualPathBlock
from cnn_jax.models.structure import structure


@pytest.mark.parametrize(("name", "params", "gflops"), [("dpn92", 37.67, 6.5), ("dpn98", 61.57, 11.7)])
def test_the_papers_networks_cost_what_table_1_says(name, params, gflops):
    found = model_info(name).structure
    assert round(found.params / 1e6, 2) == params
    assert round(found.macs / 1e9, 1) == gflops


def test_the_dense_path_grows_as_table_1_says():
    """Row by row: the residual path, twice the growth of the first block, and the growth of each."""
    taps = model_info("dpn92").structure.taps
    channels = [256 + 5 * 16, 512 + 6 * 32, 1024 + 22 * 24, 2048 + 5 * 128]
    assert [taps[f"stage{i}"] for i in (1, 2, 3, 4)] == [
        (size, size, count) for size, count in zip((56, 28, 14, 7), channels, strict=True)
    ]


def test_a_block_keeps_the_dense_channels_and_adds_to_the_residual_ones():
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 8 + 3), np.float32)
    block = DualPathBlock(width=4, features=8, growth=2, groups=2)
    variables = quick_init(block, x, train=False)
    y = quick_apply(block, variables, x, train=False)
    assert y.shape == (1, 6, 6, 8 + 3 + 2)
    np.testing.assert_array_equal(y[..., 8:11], x[..., 8:])
    assert not np.allclose(y[..., :8], x[..., :8])
    variables["params"]["conv3"]["kernel"] = 0 * variables["params"]["conv3"]["kernel"]
    y = quick_apply(block, variables, x, train=False)
    np.testing.assert_array_equal(y, np.concatenate([x, np.zeros((1, 6, 6, 2), np.float32)], axis=-1))


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_keeps_the_image_until_stage_2(size):
    sizes = [shape[0] for shape in structure(create_model("dpn68b", stem="cifar"), (size, size, 1)).taps.values()]
    assert sizes[:4] == [size, size, size // 2, size // 4]
