import jax
import jax.numpy as jnp
import pytest

from cnn_jax import UserError, create_model, list_models
from cnn_jax.layers import Conv, max_pool
from cnn_jax.layers.options import Checked
from cnn_jax.models.structure import structure


def see(name, shape, dtype=jnp.float32, **options):
    model = create_model(name, **options)
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros(shape, dtype), train=False)[0])


# The least sizes by hand: the last map before global pooling, or the last pool's output, has one pixel. Keras gives 75
# for Inception v3.
SMALLEST = {
    "alexnet": 67,
    "zfnet": 53,
    "nin_imagenet": 39,
    "vgg11": 32,
    "googlenet": 31,
    "inception_v3": 75,
    "inception_v4": 75,
    "inception_resnet_v2": 75,
    "inception_resnet_v2_fig15": 75,
    "densenet121": 29,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.startswith("inception_") and name != "inception_v3" else name
        for name in SMALLEST
    ],
)
def test_images_that_are_too_small_are_told_with_the_least_size(name):
    least = SMALLEST[name]
    line = rf'takes images \(B, H, W, C\) of at least {least}x{least} pixels, not \(2, 16, 300, 3\); stem="cifar" is'
    with pytest.raises(UserError, match=line):
        see(name, (2, 16, 300, 3))
    assert structure(create_model(name), (least, least, 3)).output == (1000,)


def test_padded_networks_take_a_single_pixel_and_no_empty_image():
    assert see("resnet18", (1, 1, 1, 3)).shape == (1, 1000)
    with pytest.raises(UserError, match=r"of at least 1x1 pixels, not \(1, 0, 8, 3\)"):
        see("resnet18", (1, 0, 8, 3))


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "lenet5"])
@pytest.mark.parametrize(
    ("shape", "line"),
    [
        (
            (224, 224, 3),
            r"takes images .*, not \(224, 224, 3\); one image is a batch of one, image\[None\]",
        ),
        ((2, 3, 224, 200), r"not \(2, 3, 224, 200\); channels come last, images.transpose\(0, 2, 3, 1\)"),
        ((2, 1, 32, 32), "channels come last"),
        ((7,), r"takes images \(B, H, W, C\), not \(7,\)"),
    ],
)
def test_images_of_another_shape_are_told(name, shape, line):
    with pytest.raises(UserError, match=line):
        see(name, shape)


def test_every_network_checks_its_options_and_its_images():
    for name in list_models():
        assert isinstance(create_model(name), Checked), name
        with pytest.raises(UserError, match=r"takes images \(B, H, W, C\)"):
            see(name, (32, 32, 3))


def test_whole_numbers_are_no_images_yet():
    with pytest.raises(UserError, match="ResNet takes images .* of floats, by its card's mean and std, not uint8"):
        see("resnet18", (1, 32, 32, 3), jnp.uint8)


def test_a_pool_and_a_convolution_say_which_map_is_too_small():
    with pytest.raises(UserError, match="a window of 3x3 finds no place in a map of 2x9"):
        max_pool(jnp.zeros((1, 2, 9, 1)), 3)
    with pytest.raises(UserError, match="a window of 5x1 finds no place in a map of 4x4"):
        jax.eval_shape(Conv(1, (5, 1)).init, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
