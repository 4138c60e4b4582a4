import pytest

from cnn_jax import UserError, create_model, model_info
from cnn_jax.models.structure import structure


def test_layers_have_the_sizes_and_parameters_of_table_1():
    """The column "# parameter before pruning", and the output sizes, at the 227 pixels that they need."""
    found = structure(create_model("squeezenet1_0"), (227, 227, 3))
    assert list(found.taps.values()) == [
        (111, 111, 96),
        (55, 55, 128),
        (55, 55, 128),
        (55, 55, 256),
        (27, 27, 256),
        (27, 27, 384),
        (27, 27, 384),
        (27, 27, 512),
        (13, 13, 512),
    ]
    params = {}
    for layer in found.layers:
        module = layer.path.split("/")[0]
        params[module] = params.get(module, 0) + layer.params
    assert list(params.values()) == [
        14_208,
        11_920,
        12_432,
        45_344,
        49_440,
        104_880,
        111_024,
        188_992,
        197_184,
        513_000,
    ]


def test_version_1_1_computes_2_4_times_less():
    """As its authors say (forresti/SqueezeNet, SqueezeNet_v1.1/README.md)."""
    one, two = (model_info(name).structure.macs for name in ("squeezenet1_0", "squeezenet1_1"))
    assert 2.3 < one / two < 2.5


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_halves_the_image_twice(size):
    taps = structure(create_model("squeezenet1_1", stem="cifar", num_classes=10), (size, size, 1)).taps
    assert [taps[name][0] for name in ("conv1", "fire3", "fire4", "fire9")] == [size, size, size // 2, size // 4]


def test_an_unknown_stem_is_told_with_near_names():
    with pytest.raises(UserError, match=r"unknown stem 'cifarr'; did you mean cifar"):
        structure(create_model("squeezenet1_0", stem="cifarr"), (32, 32, 3))
