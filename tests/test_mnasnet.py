import pytest

from cnn_jax import create_model, model_info
from cnn_jax.models.structure import structure


def test_the_gated_network_has_the_maps_of_figure_7():
    assert list(model_info("semnasnet_100").structure.taps.values()) == [
        (112, 112, 32), (112, 112, 16), (56, 56, 24), (28, 28, 40), (14, 14, 80), (14, 14, 112), (7, 7, 160),
        (7, 7, 320), (7, 7, 1280),
    ]  # fmt: skip


def test_the_gated_network_costs_what_table_1_says():
    """MnasNet-A1: 3.9M parameters, 312M multiply-adds."""
    found = model_info("semnasnet_100").structure
    assert round(found.params / 1e6, 1) == 3.9 and round(found.macs / 1e6) == 312


def test_gates_have_a_quarter_of_the_blocks_input_inside():
    params = model_info("semnasnet_100").structure.variables["params"]
    hidden = {name: block["se"]["reduce"]["kernel"].shape for name, block in params.items() if "se" in block}
    assert hidden["stage3_block1"] == (72, 6) and hidden["stage5_block2"] == (672, 28)
    assert {name.split("_")[0] for name in hidden} == {"stage3", "stage5", "stage6"}


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_leaves_out_two_halvings(size):
    sizes = [shape[0] for shape in structure(create_model("mnasnet0_5", stem="cifar"), (size, size, 1)).taps.values()]
    assert sizes[:4] == [size, size, size, size // 2] and sizes[-1] == -(-size // 8)
