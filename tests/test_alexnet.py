import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init

from cnn_jax import create_model
from cnn_jax.models.structure import structure

IMAGENET = (227, 227, 3)


NARROW = {"stem": "cifar", "widths": (96, 16, 16, 16, 16), "num_classes": 10}


def random_variables(model, size):
    """Standard normal numbers in the shapes of the network's variables."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), structure(model, size).variables)


def test_maps_have_the_sizes_of_section_3_5():
    taps = structure(create_model("alexnet"), IMAGENET).taps
    # Fig. 2 counts 186,624, 64,896, 64,896 and 43,264 neurons in layers 2 to 5.
    assert taps["conv1"] == (55, 55, 96)
    assert [int(np.prod(taps[f"conv{i}"])) for i in (2, 3, 4, 5)] == [186_624, 64_896, 64_896, 43_264]
    assert taps["pool5"] == (6, 6, 256)
    assert taps["fc6"] == taps["fc7"] == (4096,)


def test_kernels_have_the_shapes_of_section_3_5():
    params = structure(create_model("alexnet"), IMAGENET).variables["params"]
    shapes = [params[f"conv{i}"]["kernel"].shape for i in range(1, 6)]
    assert shapes == [(11, 11, 3, 96), (5, 5, 48, 256), (3, 3, 256, 384), (3, 3, 192, 384), (3, 3, 192, 256)]
    assert params["fc6"]["kernel"].shape == (6, 6, 256, 4096)


@pytest.mark.parametrize(("name", "k", "alpha"), [("alexnet", 2.0, 1e-4), ("alexnet_caffe", 1.0, 1e-4 / 5)])
def test_response_normalisation_is_the_printed_sum_or_caffes(name, k, alpha):
    model = create_model(name, **NARROW)
    images = 5 * np.random.default_rng(0).standard_normal((1, 28, 28, 3)).astype(np.float32)
    variables = random_variables(model, (28, 28, 3))
    _, state = quick_apply(model, variables, images, train=False, capture_intermediates=True, mutable=["intermediates"])
    a = np.asarray(state["intermediates"]["taps"]["conv1"], np.float64)
    b = np.empty_like(a)
    for i in range(96):
        total = np.square(a[..., max(0, i - 2) : min(95, i + 2) + 1]).sum(-1)
        b[..., i] = a[..., i] / (k + alpha * total) ** 0.75
    assert np.abs(b - a / k**0.75).max() > 0.1 * b.max()
    np.testing.assert_allclose(state["intermediates"]["lrn1"]["__call__"][0], b, rtol=1e-4)


@pytest.mark.parametrize(("pool_first", "side"), [(False, 55), (True, 27)])
def test_pooling_follows_normalisation_unless_asked_otherwise(pool_first, side):
    model = create_model("alexnet_caffe", pool_first=pool_first)

    def normalised():
        _, state = model.init_with_output(
            jax.random.key(0), jnp.zeros((1, *IMAGENET)), train=False, capture_intermediates=True, mutable=True
        )
        return state["intermediates"]["lrn1"]["__call__"][0]

    assert jax.eval_shape(normalised).shape == (1, side, side, 96)


@pytest.mark.parametrize(("name", "bias"), [("alexnet", 1.0), ("alexnet_caffe", 0.1)])
def test_weights_start_as_section_5_says(name, bias):
    model = create_model(name, **NARROW)
    params = quick_init(model, jnp.zeros((1, 28, 28, 3)), train=False)["params"]
    for layer, values in params.items():
        raised = layer in ("conv2", "conv4", "conv5", "fc6", "fc7")
        np.testing.assert_array_equal(values["bias"], np.float32(bias if raised else 0.0), err_msg=layer)
        std = 0.005 if name == "alexnet_caffe" and layer in ("fc6", "fc7") else 0.01
        # The fewest draws are 1,152 (conv4): 2% off at one sigma.
        np.testing.assert_allclose(np.std(values["kernel"]), std, rtol=0.08, err_msg=layer)


def test_dropout_stands_behind_the_hidden_layers_in_the_paper_and_before_them_in_torchvision():
    images = np.random.default_rng(0).standard_normal((2, 28, 28, 3)).astype(np.float32)

    def head_sees_all_of_fc7(name):
        model = create_model(name, **NARROW)
        variables = random_variables(model, (28, 28, 3))
        drawn = {"dropout": jax.random.key(1)}
        logits, state = quick_apply(model, variables, images, train=True, rngs=drawn, mutable=["intermediates"])
        head = variables["params"]["head"]
        return np.allclose(state["intermediates"]["taps"]["fc7"] @ head["kernel"] + head["bias"], logits, rtol=1e-3)

    assert head_sees_all_of_fc7("alexnet_owt")
    assert not head_sees_all_of_fc7("alexnet")


def test_maps_of_other_sizes_are_averaged_to_6x6():
    for size in (192, 224, 256):
        taps = structure(create_model("alexnet", num_classes=7), (size, size, 3)).taps
        assert taps["fc6"] == (4096,)


@pytest.mark.parametrize("size", [(28, 28, 1), (32, 32, 3), (64, 64, 3)])
def test_the_cifar_stem_suits_small_images(size):
    found = structure(create_model("alexnet", stem="cifar", num_classes=10), size)
    assert found.taps["conv1"][:2] == size[:2] and min(found.taps["pool5"]) >= 1
    assert found.output == (10,) and found.macs < 10**9
