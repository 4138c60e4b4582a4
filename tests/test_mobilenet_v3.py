import pytest

from cnn_jax import create_model, model_info
from cnn_jax.models.structure import structure


def test_large_has_the_inputs_of_table_1():
    assert list(model_info("mobilenet_v3_large").structure.taps.values()) == [
        (112, 112, 16), (112, 112, 16), (56, 56, 24), (28, 28, 40), (14, 14, 80), (14, 14, 112), (7, 7, 160),
        (7, 7, 960), (1280,),
    ]  # fmt: skip


def test_small_has_the_inputs_of_table_2():
    assert list(model_info("mobilenet_v3_small").structure.taps.values()) == [
        (112, 112, 16), (56, 56, 16), (28, 28, 24), (14, 14, 40), (14, 14, 48), (7, 7, 96), (7, 7, 576), (1024,),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "madds", "params"), [("large", 219, 5.4), ("small", 56, 2.5)])
def test_the_networks_cost_what_table_3_says(name, madds, params):
    found = model_info(f"mobilenet_v3_{name}").structure
    assert abs(found.macs / 1e6 / madds - 1) < 0.015
    assert abs(found.params / 1e6 - params) < 0.1


def test_gates_have_a_quarter_of_the_channels_inside_in_multiples_of_eight():
    params = model_info("mobilenet_v3_small").structure.variables["params"]
    hidden = {name: block["se"]["reduce"]["kernel"].shape for name, block in params.items() if "se" in block}
    assert hidden["stage1_block1"] == (16, 8) and hidden["stage3_block1"] == (96, 24)
    assert hidden["stage4_block2"] == (144, 40)  # 36 is nearer to 40
    assert not any(name.startswith("stage2") for name in hidden)


def test_a_width_below_three_quarters_leaves_the_stem_and_none_narrows_the_hidden_layer():
    for name, stem in (("small_050", 16), ("small_075", 16), ("large_075", 16)):
        taps = model_info(f"mobilenetv3_{name}").structure.taps
        assert taps["stem"][-1] == stem and taps["hidden"][-1] in (1024, 1280)


def test_epsilon_is_the_one_of_the_published_weights():
    assert create_model("mobilenet_v3_small").norm.keywords["epsilon"] == 1e-3
    assert create_model("mobilenetv3_small_100").norm.epsilon == 1e-5


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_leaves_out_two_halvings(size):
    sizes = [
        shape[0] for shape in structure(create_model("mobilenet_v3_small", stem="cifar"), (size, size, 1)).taps.values()
    ]
    assert sizes[:3] == [size, size, size // 2] and sizes[-2] == -(-size // 8)
