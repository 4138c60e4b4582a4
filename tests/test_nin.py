import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init

from cnn_jax import create_model
from cnn_jax.models.structure import structure


@pytest.fixture(scope="module")
def cifar():
    """The CIFAR net, variables and two images."""
    model = create_model("nin_cifar10")
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    return model, quick_init(model, images, train=False), images


def test_three_mlpconv_layers_halve_the_image_twice():
    taps = structure(create_model("nin_cifar10"), (32, 32, 3)).taps
    assert taps == {"mlpconv1": (32, 32, 96), "mlpconv2": (16, 16, 192), "mlpconv3": (8, 8, 192)}


def test_the_imagenet_net_has_the_maps_of_caffes():
    taps = structure(create_model("nin_imagenet"), (224, 224, 3)).taps
    assert [shape[0] for shape in taps.values()] == [54, 27, 13, 6]
    assert [shape[-1] for shape in taps.values()] == [96, 256, 384, 1024]


def test_every_layer_is_a_convolution_and_two_of_three_are_1x1():
    for name, size, mlpconvs in (("nin_cifar10", 32, 3), ("nin_imagenet", 224, 4)):
        layers = structure(create_model(name), (size, size, 3)).layers
        assert [layer.kind for layer in layers] == ["Conv"] * 3 * mlpconvs
        windows = [layer.path.rsplit("/", maxsplit=1)[-1] for layer in layers]
        assert windows == [*["conv", "mlp1", "mlp2"] * (mlpconvs - 1), "conv", "mlp1", "head"]


def test_logits_are_means_of_rectified_maps(cifar):
    model, variables, images = cifar
    logits, state = quick_apply(
        model, variables, images, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    maps = np.asarray(state["intermediates"]["head"]["__call__"][0])
    assert maps.shape == (2, 8, 8, 10) and maps.min() < 0
    np.testing.assert_allclose(logits, np.maximum(maps, 0).mean((1, 2)), rtol=1e-5)


def test_the_second_pool_takes_means_over_partial_windows(cifar):
    model, variables, images = cifar
    _, state = quick_apply(model, variables, images, train=False, mutable=["intermediates"])
    taps = state["intermediates"]["taps"]
    x = np.asarray(taps["mlpconv2"], np.float64)
    pooled = np.array(
        [[x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].mean((1, 2)) for j in range(8)] for i in range(8)]
    ).transpose(2, 0, 1, 3)
    kernel = np.asarray(variables["params"]["mlpconv3"]["conv"]["kernel"], np.float64)
    padded = np.pad(pooled, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corner = np.maximum(np.einsum("bijc,ijcf->bf", padded[:, 7:10, 7:10], kernel), 0)
    mlp = variables["params"]["mlpconv3"]["mlp1"]
    corner = np.maximum(corner @ np.asarray(mlp["kernel"][0, 0], np.float64), 0)
    np.testing.assert_allclose(taps["mlpconv3"][:, 7, 7], corner, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "places"), [("nin_cifar10", {"drop1", "drop2"}), ("nin_imagenet", {"drop3"})])
def test_dropout_stands_where_the_released_nets_have_it(name, places):
    model = create_model(name, stem="cifar")

    def run():
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        _, state = model.init_with_output(
            keys, jnp.zeros((1, 32, 32, 3)), train=True, capture_intermediates=True, mutable=True
        )
        return state["intermediates"]

    assert {name for name in jax.eval_shape(run) if name.startswith("drop")} == places


@pytest.mark.parametrize("name", ["nin_cifar10", "nin_imagenet"])
@pytest.mark.parametrize("size", [(28, 28, 1), (32, 32, 3), (64, 64, 3)])
def test_the_cifar_stem_suits_small_images(name, size):
    found = structure(create_model(name, stem="cifar", num_classes=10), size)
    assert found.taps["mlpconv1"][:2] == size[:2] and found.output == (10,)
