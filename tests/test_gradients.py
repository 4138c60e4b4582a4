"""Gradients by the pixels and projections down to them, against Captum, NumPy and the geometry of the layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cnn import TARGETS, SmallCNN, attributions, small_images, small_variables

from cnn_jax import UserError, create_model, extract_features, stack_blocks
from cnn_jax.models.structure import structure
from cnn_jax.models.zfnet import ZFNet
from cnn_jax.visualize import deconvnet, guided_backprop, input_gradient, integrated_gradients, saliency

NET, VARIABLES, IMAGES = SmallCNN(), small_variables(), jnp.asarray(small_images())


@pytest.mark.parametrize(
    ("method", "name", "options"),
    [(saliency, "saliency", {}), (integrated_gradients, "integrated_gradients", {"steps": 20})],
)
def test_maps_are_captums(method, name, options):
    found, expected = method(NET, VARIABLES, IMAGES, TARGETS, **options), attributions()[name]
    assert (found.shape, found.dtype) == ((2, 24, 24), jnp.float32)
    # float32 against float64 through five layers, and sums of twenty of them.
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_guided_backprop_is_the_strongest_of_the_colours():
    expected = np.abs(attributions()["guided"]).max(-1)
    found = guided_backprop(NET, VARIABLES, IMAGES, TARGETS)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


def test_integrated_gradients_sum_to_what_the_image_adds_to_the_baseline():
    """Sundararajan 2017, proposition 1, up to the error of the integral in fifty points."""
    start = jnp.full(IMAGES.shape[1:], 0.3)
    maps = integrated_gradients(NET, VARIABLES, IMAGES, 2, baseline=start)
    scores = NET.apply(VARIABLES, jnp.concatenate([IMAGES, start[None]]), train=False)[:, 2]
    np.testing.assert_allclose(maps.sum((1, 2)), scores[:2] - scores[2], rtol=0.02)


def test_without_a_target_it_is_what_the_network_takes_each_image_for():
    best = np.asarray(NET.apply(VARIABLES, IMAGES, train=False)).argmax(-1)
    found = saliency(NET, VARIABLES, IMAGES)
    np.testing.assert_array_equal(found, saliency(NET, VARIABLES, IMAGES, best))
    np.testing.assert_array_equal(found[:1], saliency(NET, VARIABLES, IMAGES[:1], int(best[0])))


def test_a_gradient_can_be_compiled_with_what_is_around_it():
    whole = jax.jit(lambda variables, images, target: saliency(NET, variables, images, target).max())
    alone = saliency(NET, VARIABLES, IMAGES, TARGETS).max()
    np.testing.assert_allclose(whole(VARIABLES, IMAGES, TARGETS), alone, rtol=1e-5)


@pytest.mark.slow
def test_scanned_blocks_have_the_same_rule():
    model, scanned = (create_model("resnet20_cifar", scan=scan) for scan in (False, True))
    rng = np.random.default_rng(0)
    shapes = structure(model, (8, 8, 3)).variables
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), shapes)
    variables["params"] = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32) / 5, shapes["params"]
    )
    images = jnp.asarray(rng.standard_normal((1, 8, 8, 3)), jnp.float32)
    one, other = (
        input_gradient(net, values, images, 3, rule="guided")
        for net, values in ((model, variables), (scanned, stack_blocks(variables)))
    )
    assert np.abs(one).max() > 0
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max())  # sums in another order


# What Zeiler & Fergus 2013, sec. 2.1, says in NumPy: unpool by the switches, rectify, transposed filters.
def unpooled(values, pooled_from, window, stride, pad):
    height, width, channels = pooled_from.shape
    before = np.pad(pooled_from, ((pad, window), (pad, window), (0, 0)), constant_values=-np.inf)
    made = np.zeros_like(before)
    for row, column, channel in np.ndindex(values.shape):
        top, left = row * stride, column * stride
        seen = before[top : top + window, left : left + window, channel]
        down, right = np.unravel_index(seen.argmax(), seen.shape)
        made[top + down, left + right, channel] += values[row, column, channel]
    return made[pad : pad + height, pad : pad + width]


def unfiltered(values, kernel):
    height, width, _ = values.shape
    made = np.zeros((height + 2, width + 2, kernel.shape[2]))
    for down, right in np.ndindex(3, 3):
        made[down : down + height, right : right + width] += values @ kernel[down, right].T
    return made[1:-1, 1:-1]


def test_a_deconvnet_unpools_by_its_switches_rectifies_and_filters():
    kernels = [np.asarray(VARIABLES["params"][f"layer{i}"]["conv"]["kernel"], np.float64) for i in (1, 2, 3)]
    maps = extract_features(NET, VARIABLES, IMAGES, ["conv1", "conv2", "conv3"])
    found = deconvnet(NET, VARIABLES, IMAGES, "conv3", 5)
    for image, made in enumerate(found):
        first, second, third = (np.asarray(maps[name][image], np.float64) for name in ("conv1", "conv2", "conv3"))
        alone = np.zeros_like(third)
        place = (*np.unravel_index(third[..., 5].argmax(), third.shape[:2]), 5)
        alone[place] = third[place]
        below = unfiltered(np.maximum(alone, 0), kernels[2])
        below = unfiltered(np.maximum(unpooled(below, second, 2, 2, 0), 0), kernels[1])
        below = unfiltered(np.maximum(unpooled(below, first, 3, 2, 1), 0), kernels[0])
        assert np.abs(below).max() > 0
        np.testing.assert_allclose(made, below, atol=1e-5 * np.abs(below).max())


def test_a_deconvnet_begins_at_the_largest_of_all_channels_unless_one_is_named():
    activation = np.asarray(extract_features(NET, VARIABLES, IMAGES, "conv2")["conv2"])
    largest = activation.max((1, 2)).argmax(-1)
    found = deconvnet(NET, VARIABLES, IMAGES, "conv2")
    for image, channel in enumerate(largest.tolist()):
        np.testing.assert_array_equal(found[image], deconvnet(NET, VARIABLES, IMAGES, "conv2", channel)[image])
    np.testing.assert_array_equal(found, deconvnet(NET, VARIABLES, IMAGES, "conv2", largest))


# Kernel, stride and padding of ZFNet's layers up to conv3 (fig. 3), pools among them.
ZFNET = {"conv2": [(7, 2, 1), (3, 2, 1), (5, 2, 0)], "conv3": [(7, 2, 1), (3, 2, 1), (5, 2, 0), (3, 2, 1), (3, 1, 1)]}


@pytest.fixture(scope="module")
def zfnet():
    """A narrow ZFNet, its filters drawn, and two images."""
    model, rng = ZFNet((6, 8, 8, 4, 4), num_classes=2), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32), structure(model, (112, 112, 3)).variables["params"]
    )
    for name in ("conv1", "conv2", "conv3"):
        params[name]["kernel"] = rng.uniform(-0.5, 1, params[name]["kernel"].shape).astype(np.float32)  # few are dead
    return model, {"params": params}, jnp.asarray(rng.standard_normal((2, 112, 112, 3)), jnp.float32)


@pytest.mark.parametrize("layer", [pytest.param("conv2", marks=pytest.mark.slow), "conv3"])
def test_the_projection_of_one_activation_is_zero_outside_its_receptive_field(zfnet, layer):
    model, variables, images = zfnet
    activation = np.asarray(extract_features(model, variables, images, layer)[layer])
    for channel in (0, 5):
        found = np.asarray(deconvnet(model, variables, images, layer, channel))
        for image in range(2):
            position = np.unravel_index(activation[image, ..., channel].argmax(), activation.shape[1:3])
            inside = np.zeros((112, 112), bool)
            first, last = np.array(position), np.array(position)
            for kernel, stride, pad in reversed(ZFNET[layer]):
                first, last = first * stride - pad, last * stride - pad + kernel - 1
            inside[tuple(slice(max(low, 0), high + 1) for low, high in zip(first, last, strict=True))] = True
            assert 0 < inside.mean() < 0.6
            assert (found[image][~inside] == 0).all()
            assert np.abs(found[image][inside]).max() > 0


def test_mistakes_are_told():
    for call, line in (
        (lambda: saliency(NET, VARIABLES, IMAGES, 5), "a target must be at least 0 and below 5, not 5"),
        (lambda: saliency(NET, VARIABLES, IMAGES, [1, 2, 3]), "or 2 of them, one for each image"),
        (lambda: saliency(NET, VARIABLES, IMAGES, 0.5), "a target is the number of a class"),
        (lambda: saliency(SmallCNN(num_classes=0), VARIABLES, IMAGES), "num_classes=0 gives features"),
        (lambda: integrated_gradients(NET, VARIABLES, IMAGES, steps=0), "steps must be a positive whole number"),
        (lambda: deconvnet(NET, VARIABLES, IMAGES, "conv4"), "did you mean conv"),
        (lambda: deconvnet(NET, VARIABLES, IMAGES, "conv2", 12), "conv2 has channels 0 to 11, not 12"),
    ):
        with pytest.raises(UserError, match=line):
            call()
