import flax.linen as nn
import pytest

from cnn_jax import create_model
from cnn_jax.models.mobilenet import scaled
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


def test_timms_version_1_differs_by_the_cap_of_relu6():
    assert create_model("mobilenet_100").act is nn.relu
    assert create_model("mobilenetv1_100").act is create_model("mobilenetv1_125").act is nn.relu6


def test_widths_are_multiples_of_eight_and_lose_no_more_than_a_tenth():
    assert [scaled(c, 0.35) for c in (32, 16, 24, 320)] == [16, 8, 8, 112]
    assert [scaled(c, 1.4) for c in (32, 16, 24, 96, 1280)] == [48, 24, 32, 136, 1792]


@pytest.mark.parametrize("name", ["mobilenet_050", "mobilenetv2_100"])
@pytest.mark.parametrize("size", [(28, 28, 1), (32, 32, 3), (64, 64, 3)])
def test_the_cifar_stem_halves_the_image_three_times(name, size):
    found = structure(create_model(name, stem="cifar", num_classes=10), size)
    sizes = [shape[0] for shape in found.taps.values()]
    assert sizes[:3] == [size[0]] * 3 and sizes[-1] == -(-size[0] // 8)


def test_squeeze_and_excitation_stands_behind_the_pointwise_layer():
    params = structure(create_model("mobilenet_100", se_reduction=16), IMAGENET).variables["params"]
    assert params["stage5_block2"]["se"]["reduce"]["kernel"].shape == (1024, 64)
