from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import create_model
from cnn_jax.layers import BatchNorm, ConvBN
from cnn_jax.models.mobilenet import InvertedResidual, scaled
from cnn_jax.models.structure import structure

IMAGENET = (224, 224, 3)


@pytest.mark.parametrize(
    ("name", "millions", "params"),
    [("025", 41, 0.5), ("050", 149, 1.3), ("075", 325, 2.6), ("100", 569, 4.2)],
)
def test_version_1_costs_what_table_6_says(name, millions, params):
    found = structure(create_model(f"mobilenet_{name}"), IMAGENET)
    # 0.5 times the width counts 149.497 M: the paper rounds down.
    assert abs(found.macs / 1e6 - millions) <= 0.51
    assert round(found.params / 1e6, 1) == params


@pytest.mark.parametrize(("size", "millions"), [(224, 569), (192, 418), (160, 290), (128, 186)])
def test_version_1_costs_what_table_7_says_at_smaller_resolutions(size, millions):
    macs = structure(create_model("mobilenet_100"), (size, size, 3)).macs
    assert abs(macs / 1e6 - millions) < 0.8


def test_version_1_has_the_maps_of_table_1():
    taps = structure(create_model("mobilenet_100"), IMAGENET).taps
    assert list(taps.values()) == [
        (112, 112, 32),
        (112, 112, 64),
        (56, 56, 128),
        (28, 28, 256),
        (14, 14, 512),
        (7, 7, 1024),
    ]


def test_version_1_spends_most_in_1x1_convolutions():
    layers = structure(create_model("mobilenet_100"), IMAGENET).layers
    macs = {
        part: sum(layer.macs for layer in layers if part in layer.path)
        for part in ("stem", "depthwise", "pointwise", "head")
    }
    # By hand from table 1: (channels, side of the output) of each depthwise layer.
    depthwise = [(32, 112), (64, 56), (128, 56), (128, 28), (256, 28), (256, 14), *[(512, 14)] * 5, (512, 7), (1024, 7)]
    assert macs["stem"] == 27 * 32 * 112**2 and macs["head"] == 1024 * 1000
    assert macs["depthwise"] == sum(9 * channels * side**2 for channels, side in depthwise)
    assert macs["pointwise"] > 0.94 * sum(macs.values())


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


def test_timms_version_1_differs_by_the_cap_of_relu6():
    assert create_model("mobilenet_100").act is nn.relu
    assert create_model("mobilenetv1_100").act is create_model("mobilenetv1_125").act is nn.relu6


def test_widths_are_multiples_of_eight_and_lose_no_more_than_a_tenth():
    assert [scaled(c, 0.35) for c in (32, 16, 24, 320)] == [16, 8, 8, 112]
    assert [scaled(c, 1.4) for c in (32, 16, 24, 96, 1280)] == [48, 24, 32, 136, 1792]


def test_the_last_convolution_of_version_2_never_shrinks():
    for name, width in (("035", 1280), ("140", 1792), ("120d", 1280)):
        assert structure(create_model(f"mobilenetv2_{name}"), IMAGENET).taps["final"][-1] == width


def test_timms_deep_nets_keep_their_ends():
    layers = structure(create_model("mobilenetv2_120d"), IMAGENET).layers
    blocks = {layer.path.split("/")[0] for layer in layers if "_block" in layer.path}
    counts = [sum(block.startswith(f"stage{i}_") for block in blocks) for i in range(1, 8)]
    assert counts == [1, 3, 5, 6, 5, 5, 1]  # 1.4 times (1, 2, 3, 4, 3, 3, 1), rounded up


@pytest.mark.parametrize("name", ["mobilenet_050", "mobilenetv2_100"])
@pytest.mark.parametrize("size", [(28, 28, 1), (32, 32, 3), (64, 64, 3)])
def test_the_cifar_stem_halves_the_image_three_times(name, size):
    found = structure(create_model(name, stem="cifar", num_classes=10), size)
    sizes = [shape[0] for shape in found.taps.values()]
    assert sizes[:3] == [size[0]] * 3 and sizes[-1] == -(-size[0] // 8)


def test_squeeze_and_excitation_gates_the_depthwise_output_of_version_2():
    model = create_model("mobilenetv2_100", se_reduction=16)
    params = structure(model, IMAGENET).variables["params"]
    assert params["stage2_block2"]["se"]["reduce"]["kernel"].shape == (144, 9)
    params = structure(create_model("mobilenet_100", se_reduction=16), IMAGENET).variables["params"]
    assert params["stage5_block2"]["se"]["reduce"]["kernel"].shape == (1024, 64)


def test_epsilon_is_the_one_of_the_published_weights():
    assert create_model("mobilenetv2_100").norm is BatchNorm and BatchNorm.epsilon == 1e-5
