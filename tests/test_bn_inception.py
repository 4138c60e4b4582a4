import jax
import numpy as np
import pytest

from cnn_jax import create_model, export_state_dict, import_state_dict, model_info
from cnn_jax.models.bn_inception import halve
from cnn_jax.models.structure import structure

# Fig. 5 of the paper: output size and channels.
OUTPUTS = {
    "conv1": (112, 64),
    "conv2": (56, 192),
    "inception_3a": (28, 256),
    "inception_3b": (28, 320),
    "inception_3c": (14, 576),
    "inception_4a": (14, 576),
    "inception_4b": (14, 576),
    "inception_4c": (14, 608),
    "inception_4d": (14, 608),
    "inception_4e": (7, 1056),
    "inception_5a": (7, 1024),
    "inception_5b": (7, 1024),
}


def test_outputs_have_the_sizes_of_the_published_net():
    taps = structure(create_model("bn_inception"), (224, 224, 3)).taps
    assert taps == {name: (size, size, channels) for name, (size, channels) in OUTPUTS.items()}


def test_every_5x5_is_two_3x3():
    layers = structure(create_model("bn_inception"), (224, 224, 3)).variables["params"]
    sizes = {
        layer["conv"]["kernel"].shape[0]
        for name, module in layers.items()
        if name.startswith("inception")
        for layer in module.values()
    }
    assert sizes == {1, 3}
    assert layers["inception_4e"]["double2"]["conv"]["kernel"].shape == (3, 3, 256, 256)


def test_convolutions_have_biases_beside_their_norms():
    params = structure(create_model("bn_inception"), (224, 224, 3)).variables["params"]
    assert params["conv1"]["conv"]["bias"].shape == params["conv1"]["norm"]["bias"].shape == (64,)


@pytest.mark.parametrize(("size", "out"), [(28, 14), (14, 7), (7, 4), (29, 15)])
def test_the_halving_pool_fits_the_convolutions_beside_it(size, out):
    # (size + 2 - 3) // 2 + 1 of a padded 3x3 of stride 2.
    x = np.random.default_rng(0).standard_normal((1, size, size, 2)).astype(np.float32)
    y = np.asarray(halve(x))
    assert y.shape == (1, out, out, 2) and out == (size - 1) // 2 + 1
    start = -1 if size % 2 else 0
    corner = x[0, max(start, 0) : start + 3, max(start, 0) : start + 3].max((0, 1))
    np.testing.assert_array_equal(y[0, 0, 0], corner)


def test_the_card_subtracts_caffes_means_of_red_green_and_blue():
    info = model_info("bn_inception")
    image = np.array([1.0, 0.5, 0.0])
    fed = (image - info.mean) / info.std
    np.testing.assert_allclose(fed, 255 * image - [128, 117, 104], atol=1e-9)


def test_the_first_kernel_is_turned_from_caffes_blue_green_red_and_back():
    shapes = model_info("bn_inception").structure.variables
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    kernels = {name: variables["params"][name]["conv"]["kernel"] for name in ("conv1", "conv2_reduce")}
    for kernel in kernels.values():
        kernel[:, :, 0] = 1  # of the first, it reads red alone
    caffe = export_state_dict("bn_inception", variables)
    assert caffe["conv1_7x7_s2.weight"].any((0, 2, 3)).tolist() == [False, False, True]
    assert caffe["conv2_3x3_reduce.weight"].any((0, 2, 3)).tolist() == [True, *[False] * 63]
    back = import_state_dict("bn_inception", caffe)
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(back["params"][name]["conv"]["kernel"], kernel)


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_keeps_the_image_until_the_pool_after_conv2(size):
    taps = structure(create_model("bn_inception", stem="cifar"), (size, size, 1)).taps
    sizes = [taps[name][0] for name in ("conv2", "inception_3a", "inception_3c", "inception_4e")]
    assert sizes == [size, size // 2, size // 4, -(-size // 8)]
