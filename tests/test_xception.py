from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_init, quick_jit

from cnn_jax import create_model, model_info
from cnn_jax.layers import BatchNorm, ConvBN
from cnn_jax.models.structure import structure
from cnn_jax.models.xception import AlignedBlock, Block, SeparableConv


def test_outputs_have_the_sizes_of_figure_5():
    taps = structure(create_model("xception"), (299, 299, 3)).taps
    assert taps["conv2"] == (147, 147, 64)
    assert [taps[f"block{i}"] for i in (1, 2, 3)] == [(74, 74, 128), (37, 37, 256), (19, 19, 728)]
    assert all(taps[f"block{i}"] == (19, 19, 728) for i in range(4, 12))
    assert taps["block12"] == (10, 10, 1024)
    assert taps["conv4"] == (10, 10, 2048)


def test_there_are_36_convolutional_layers():
    # Sec. 3: 36 layers, a separable convolution counting as one, shortcuts not.
    layers = structure(create_model("xception"), (299, 299, 3)).layers
    counted = [layer for layer in layers if layer.path.endswith(("pointwise", "conv1/conv", "conv2/conv"))]
    assert len(counted) == 36


def separable():
    return partial(SeparableConv, norm=BatchNorm, dtype=jnp.float32)


def test_nothing_stands_between_depthwise_and_pointwise():
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 3)).astype(np.float32)
    layer = separable()(4)
    variables = quick_init(layer, x, train=False)
    assert variables["params"]["depthwise"]["kernel"].shape == (3, 3, 1, 3)
    run = quick_jit(partial(layer.apply, variables, train=False))
    np.testing.assert_allclose(run(-x), -run(x), rtol=1e-5, atol=1e-6)  # linear with fresh statistics


@pytest.mark.parametrize("act_first", [True, False])
def test_only_the_branch_is_activated_and_not_the_shortcut(act_first):
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 4)).astype(np.float32)
    block = Block((4, 4), 1, act_first, separable(), ConvBN, None)
    variables = quick_init(block, x, train=False)
    run = quick_jit(partial(block.apply, variables, train=False))
    branch = run(x) - x
    # With a first ReLU the branch does not see negative values; without it does.
    same = np.allclose(branch, run(np.maximum(x, 0)) - np.maximum(x, 0), atol=1e-5)
    assert same == act_first
    assert "project" not in variables["params"]


def test_blocks_that_change_the_shape_project_the_shortcut_with_their_stride():
    params = structure(create_model("xception"), (299, 299, 3)).variables["params"]
    projected = {name for name, layers in params.items() if "project" in layers}
    assert projected == {"block1", "block2", "block3", "block12"}
    assert params["block12"]["project"]["conv"]["kernel"].shape == (1, 1, 728, 1024)


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_keeps_the_image_until_the_first_block(size):
    taps = structure(create_model("xception", stem="cifar"), (size, size, 1)).taps
    sizes = [taps[name][0] for name in ("conv2", "block1", "block2", "block3", "conv4")]
    assert sizes == [size, size // 2, size // 4, -(-size // 8), -(-size // 16)]


def test_aligned_nets_have_the_layers_of_their_names():
    """Two in the stem and three a block, a separable convolution counting as one; shortcuts do not count."""
    for layers, blocks in ((41, 13), (65, 21), (71, 23)):
        found = model_info(f"xception{layers}").structure
        assert sum(layer.path.endswith("pointwise/conv") for layer in found.layers) == 3 * blocks == layers - 2


def test_aligned_nets_halve_the_image_in_the_last_depthwise_layer_of_a_block():
    taps = model_info("xception71").structure.taps
    assert [taps[f"block{i}"][0] for i in (1, 2, 3, 4, 5, 21, 22, 23)] == [75, 75, 38, 38, 19, 19, 10, 10]


def test_the_last_aligned_block_is_activated_behind_each_layer_and_has_no_shortcut():
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 4)).astype(np.float32)
    for shortcut in (True, False):
        block = AlignedBlock((4, 4, 4), 1, shortcut, ConvBN)
        variables = quick_init(block, x, train=False)
        variables["params"]["conv3_pointwise"]["norm"]["scale"] *= 0
        y = quick_jit(partial(block.apply, variables, train=False))(x)
        np.testing.assert_array_equal(y, x if shortcut else 0 * x)
