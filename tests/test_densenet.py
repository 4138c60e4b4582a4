import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_init, quick_jit

from cnn_jax import create_model
from cnn_jax.models.densenet import DenseLayer
from cnn_jax.models.structure import structure
from cnn_jax.weights.names import aliases_for

IMAGE, SMALL = (224, 224, 3), (32, 32, 3)
# Table 2: millions of parameters, as printed.
TABLE_2 = {
    "densenet_40_12": (40, 1.0),
    "densenet_100_12": (100, 7.0),
    "densenet_100_24": (100, 27.2),
    "densenet_bc_100_12": (100, 0.8),
    "densenet_bc_250_24": (250, 15.3),
    "densenet_bc_190_40": (190, 25.6),
}


DEEPEST = ("densenet_bc_250_24", "densenet_bc_190_40")  # long to trace; their counts are in test_models too
MARKED = [pytest.param(name, marks=pytest.mark.slow) if name in DEEPEST else name for name in TABLE_2]


@pytest.mark.parametrize("name", MARKED)
def test_cifar_nets_have_the_layers_and_parameters_of_table_2(name):
    found = structure(create_model(name), SMALL)
    assert (sum(layer.macs > 0 for layer in found.layers), round(found.params / 1e6, 1)) == TABLE_2[name]


@pytest.mark.parametrize("depth", [121, 161, 169, 201, 264])
def test_weight_layers_give_an_imagenet_net_its_name(depth):
    # Table 1 gives 264 as (6, 12, 64, 48): 265 layers by the count that names the others.
    layers = structure(create_model(f"densenet{depth}"), IMAGE).layers
    assert sum(layer.macs > 0 for layer in layers) == (265 if depth == 264 else depth)


def test_blocks_have_the_sizes_of_table_1():
    found = structure(create_model("densenet121"), IMAGE)
    assert list(found.taps.values()) == [
        (112, 112, 64),
        (56, 56, 64 + 6 * 32),
        (28, 28, 128 + 12 * 32),
        (14, 14, 256 + 24 * 32),
        (7, 7, 512 + 16 * 32),
        (7, 7, 1024),
    ]


def test_a_layer_sees_every_feature_before_it():
    shapes = structure(create_model("densenet_bc_100_12"), SMALL).variables["params"]
    for j in range(1, 17):
        layer = shapes[f"stage1_layer{j}"]
        assert layer["conv1"]["kernel"].shape == (1, 1, 24 + 12 * (j - 1), 48)
        assert layer["conv2"]["kernel"].shape == (3, 3, 48, 12)
    assert shapes["transition1"]["conv"]["kernel"].shape == (1, 1, 216, 108)
    plain = structure(create_model("densenet_40_12"), SMALL).variables["params"]
    assert plain["stage1_layer12"]["conv1"]["kernel"].shape == (3, 3, 16 + 11 * 12, 12)
    assert plain["transition1"]["conv"]["kernel"].shape == (1, 1, 160, 160)  # no compression


def test_features_are_joined_in_the_order_of_the_layers():
    model = create_model("densenet_bc_100_12", num_classes=0).clone(stages=(2, 1))
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype(np.float32)
    variables = quick_init(model, x, train=False)
    run = partial(model.apply, train=False, capture_intermediates=True, mutable=["intermediates"])
    seen = quick_jit(run)(variables, x)[1]["intermediates"]
    parts = [seen[name]["__call__"][0] for name in ("stem", "stage1_layer1", "stage1_layer2")]
    np.testing.assert_array_equal(seen["taps"]["stage1"], np.concatenate(parts, -1))
    # A transition projects the rectified norm and then averages 2x2 pixels.
    norm, kernel = seen["transition1"]["norm"]["__call__"][0], variables["params"]["transition1"]["conv"]["kernel"]
    projected = np.maximum(norm, 0) @ kernel[0, 0]
    np.testing.assert_allclose(
        seen["transition1"]["__call__"][0], projected.reshape(1, 4, 2, 4, 2, -1).mean((2, 4)), rtol=1e-4, atol=1e-5
    )


def test_remat_changes_no_number():
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    plain, remat = (create_model("densenet_bc_100_12", remat=remat).clone(stages=(2,)) for remat in (False, True))
    variables = quick_init(plain, x, train=False)
    assert structure(plain, SMALL).layers == structure(remat, SMALL).layers

    def gradients(model):
        def loss(params):
            logits = model.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])[0]
            return jnp.square(logits).sum()

        return quick_jit(jax.grad(loss))(variables["params"])

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *map(gradients, (plain, remat)))


def test_dropout_acts_behind_every_convolution_of_a_layer():
    rng = np.random.default_rng(0)
    x = tuple(rng.standard_normal((1, 8, 8, width)).astype(np.float32) for width in (4, 2))
    layer, key = DenseLayer(2, dropout=0.5), jax.random.key(0)

    @quick_jit
    def run(x):
        variables = layer.init(key, x, train=False)
        kept = {"capture_intermediates": True, "mutable": ["intermediates", "batch_stats"]}
        return layer.apply(variables, x, train=True, rngs={"dropout": key}, **kept)[1]["intermediates"]

    dropped = run(x)["dropout"]["__call__"]
    assert [values.shape[-1] for values in dropped] == [8, 2]
    for values in dropped:
        assert 0.3 < (np.asarray(values) == 0).mean() < 0.7


def test_weights_start_as_he_draws_them():
    model = create_model("densenet_40_12", num_classes=0).clone(stages=(1,), growth=48)
    kernel = quick_init(model, jnp.zeros((1, 8, 8, 3)), train=False)["params"]["stage1_layer1"]["conv1"]
    kernel = np.asarray(kernel["kernel"])  # 6,912 values: a standard error of 0.9%
    assert abs(kernel.std() / np.sqrt(2 / (9 * 16)) - 1) < 0.04


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_small_stem_keeps_the_size_of_small_images(size):
    taps = structure(create_model("densenet121", stem="cifar", num_classes=10), (size, size, 1)).taps
    assert taps["stem"] == (size, size, 64)
    assert taps["stage1"] == (size, size, 256)


def test_squeeze_and_excitation_ends_every_dense_layer():
    layers = structure(create_model("densenet121", se_reduction=16), IMAGE).layers
    assert sum(layer.path.endswith("se/reduce") for layer in layers) == 6 + 12 + 24 + 16


def test_old_keys_of_torchvision_have_todays_names():
    ((pattern, name),) = aliases_for("torchvision.densenet121")
    for keys in (("norm.1.weight", "norm1.weight"), ("conv.2.weight", "conv2.weight")):
        old, new = (f"features.denseblock1.denselayer10.{key}" for key in keys)
        assert re.sub(pattern, name, old) == re.sub(pattern, name, new) == new
