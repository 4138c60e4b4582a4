import jax
import jax.numpy as jnp
from quick_jit import quick_init

from cnn_jax import create_model
from cnn_jax.models.structure import structure


def test_layers_of_lenet_are_those_of_the_paper():
    """LeCun 1998, sec. II.B; a connection of a convolution is a multiply-accumulate or a bias."""
    found = structure(create_model("lenet5"), (32, 32, 1))
    layers = {layer.path: layer for layer in found.layers}
    assert {path: layer.params for path, layer in layers.items()} == {
        "c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164,
    }  # fmt: skip
    assert layers["c1"].macs == 122_304 - 6 * 28 * 28
    assert layers["c3"].macs == 151_600 - 16 * 10 * 10
    assert layers["c1"].shape == (28, 28, 6) and layers["c1"].values == 4_704


def test_shapes_are_those_of_a_real_init():
    model = create_model("resnet18", stem="cifar", num_classes=10)
    found = structure(model, (32, 32, 3))
    real = quick_init(model, jnp.zeros((1, 32, 32, 3)), train=False)
    assert jax.tree.map(jnp.shape, real) == jax.tree.map(lambda leaf: leaf.shape, found.variables)
    assert found.params == sum(leaf.size for leaf in jax.tree.leaves(real["params"]))
    assert found.output == (10,)


def test_auxiliary_heads_are_counted_apart():
    found = structure(create_model("googlenet_bn"), (224, 224, 3))
    assert (found.params, found.params - found.aux_params) == (13_004_888, 6_624_904)  # torchvision 0.28
    assert found.macs == 1_498_376_192


def test_taps_come_in_the_order_of_the_network():
    assert list(structure(create_model("lenet5"), (32, 32, 1)).taps) == ["c1", "s2", "c3", "s4", "c5", "f6"]
