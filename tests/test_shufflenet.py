import numpy as np
import pytest

from cnn_jax import UserError, create_model, model_info
from cnn_jax.models.shufflenet import shuffle_channels
from cnn_jax.models.structure import structure


@pytest.mark.parametrize(("groups", "millions"), [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)])
def test_version_1_costs_what_table_1_says(groups, millions):
    assert abs(model_info(f"shufflenet_v1_g{groups}").structure.macs / 1e6 - millions) < 1.5


@pytest.mark.parametrize(
    ("width", "millions", "params"), [("0_5", 41, 1.4), ("1_0", 146, 2.3), ("1_5", 299, 3.5), ("2_0", 591, 7.4)]
)
def test_version_2_costs_what_table_5_says(width, millions, params):
    found = model_info(f"shufflenet_v2_x{width}").structure
    assert abs(found.macs / 1e6 / millions - 1) < 0.015
    assert round(found.params / 1e6, 1) == params


def test_versions_have_the_maps_of_their_tables():
    assert list(model_info("shufflenet_v1_g3").structure.taps.values()) == [
        (112, 112, 24), (28, 28, 240), (14, 14, 480), (7, 7, 960),
    ]  # fmt: skip
    assert list(model_info("shufflenet_v2_x1_0").structure.taps.values()) == [
        (112, 112, 24), (28, 28, 116), (14, 14, 232), (7, 7, 464), (7, 7, 1024),
    ]  # fmt: skip


def test_a_shuffle_gives_every_group_channels_of_all_groups():
    x = np.arange(6.0).reshape(1, 1, 1, 6)  # groups (0, 1, 2) and (3, 4, 5)
    np.testing.assert_array_equal(shuffle_channels(x, 2)[0, 0, 0], [0, 3, 1, 4, 2, 5])
    np.testing.assert_array_equal(shuffle_channels(shuffle_channels(x, 2), 3), x)


def test_only_the_first_1x1_of_version_1_is_dense():
    params = model_info("shufflenet_v1_g3").structure.variables["params"]
    inputs = {name: block["reduce"]["conv"]["kernel"].shape[2] for name, block in params.items() if "block" in name}
    assert inputs.pop("stage2_block1") == 24
    assert inputs.pop("stage2_block2") == 240 // 3 and inputs.pop("stage4_block1") == 480 // 3


@pytest.mark.parametrize("name", ["shufflenet_v1_g8", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_halves_the_image_three_times(name, size):
    sizes = [shape[0] for shape in structure(create_model(name, stem="cifar"), (size, size, 1)).taps.values()]
    assert sizes[:4] == [size, size // 2, size // 4, -(-size // 8)]


def test_an_unknown_stem_is_told_with_near_names():
    with pytest.raises(UserError, match=r"unknown stem 'cifarr'; did you mean cifar"):
        structure(create_model("shufflenet_v2_x0_5", stem="cifarr"), (32, 32, 3))
