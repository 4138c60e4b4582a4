from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import create_model
from cnn_jax.layers import BatchNorm, ConvBN
from cnn_jax.models.mobilenet_v2 import InvertedResidual
from cnn_jax.models.structure import structure

IMAGENET = (224, 224, 3)


def test_version_2_has_the_maps_of_table_2():
    taps = structure(create_model("mobilenetv2_100"), IMAGENET).taps
    assert list(taps.values()) == [
        (112, 112, 32),
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 32),
        (14, 14, 64),
        (14, 14, 96),
        (7, 7, 160),
        (7, 7, 320),
        (7, 7, 1280),
    ]


def test_version_2_has_17_blocks_and_expands_sixfold_in_all_but_the_first():
    params = structure(create_model("mobilenetv2_100"), IMAGENET).variables["params"]
    blocks = {name: block for name, block in params.items() if "_block" in name}
    assert len(blocks) == 17
    assert "expand" not in blocks.pop("stage1_block1")
    for block in blocks.values():
        inputs, inner = block["expand"]["conv"]["kernel"].shape[2:]
        assert inner == 6 * inputs and block["depthwise"]["conv"]["kernel"].shape == (3, 3, 1, inner)


def run_block(features, stride, x):
    """The output of a block, and those of its layers by name."""
    block = InvertedResidual(features, 6 * 16, stride=stride, conv=partial(ConvBN, act=nn.relu6))
    variables = quick_init(block, x, train=False)
    y, state = quick_apply(block, variables, x, train=False, capture_intermediates=True, mutable=["intermediates"])
    return y, {name: value["__call__"][0] for name, value in state["intermediates"].items() if name != "__call__"}


def test_an_inverted_residual_is_linear_at_its_end_and_adds_its_input():
    x = 20 * np.random.default_rng(0).standard_normal((1, 8, 8, 16)).astype(np.float32)
    y, layers = run_block(16, 1, x)
    for name in ("expand", "depthwise"):
        assert layers[name].min() == 0 and layers[name].max() == 6
    assert layers["project"].min() < 0
    np.testing.assert_allclose(y, x + layers["project"], rtol=1e-6)


def test_version_2_caps_its_activations_at_six():
    model = create_model("mobilenetv2_035", stem="cifar", num_classes=0)
    rng = np.random.default_rng(0)
    shapes = structure(model, (28, 28, 1)).variables
    variables = jax.tree.map(lambda leaf: rng.uniform(1, 2, leaf.shape).astype(np.float32), shapes)
    images = rng.standard_normal((1, 28, 28, 1), np.float32)
    features = quick_jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    assert features.max() == 6


@pytest.mark.parametrize(("features", "stride"), [(24, 1), (16, 2)])
def test_a_block_that_changes_the_shape_has_no_shortcut(features, stride):
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 16)).astype(np.float32)
    y, layers = run_block(features, stride, x)
    np.testing.assert_array_equal(y, layers["project"])


def test_the_last_convolution_of_version_2_never_shrinks():
    for name, width in (("035", 1280), ("140", 1792), ("120d", 1280)):
        assert structure(create_model(f"mobilenetv2_{name}"), IMAGENET).taps["final"][-1] == width


def test_timms_deep_nets_keep_their_ends():
    layers = structure(create_model("mobilenetv2_120d"), IMAGENET).layers
    blocks = {layer.path.split("/")[0] for layer in layers if "_block" in layer.path}
    counts = [sum(block.startswith(f"stage{i}_") for block in blocks) for i in range(1, 8)]
    assert counts == [1, 3, 5, 6, 5, 5, 1]  # 1.4 times (1, 2, 3, 4, 3, 3, 1), rounded up


def test_squeeze_and_excitation_gates_the_depthwise_output():
    params = structure(create_model("mobilenetv2_100", se_reduction=16), IMAGENET).variables["params"]
    assert params["stage2_block2"]["se"]["reduce"]["kernel"].shape == (144, 9)


def test_epsilon_is_the_one_of_the_published_weights():
    assert create_model("mobilenetv2_100").norm is BatchNorm and BatchNorm.epsilon == 1e-5
