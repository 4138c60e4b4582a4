from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply

from cnn_jax import create_model
from cnn_jax.models.preresnet import BasicUnit, BottleneckUnit, PreResNet
from cnn_jax.models.structure import structure

IMAGE, SMALL = (224, 224, 3), (32, 32, 3)


def drawn(module, x, seed=0):
    """Variables whose every leaf is drawn, so that no norm is the identity."""
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.2, 1, leaf.shape) * rng.choice([-1, 1]), leaf.dtype),
                        variables) | {"batch_stats": jax.tree.map(
                            lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype),
                            variables["batch_stats"])}  # fmt: skip


def norm_relu(x, variables, name):
    p, s = variables["params"][name], variables["batch_stats"][name]
    return np.maximum((x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"], 0)


def test_a_bottleneck_unit_is_what_the_paper_draws():
    x = np.random.default_rng(0).standard_normal((2, 1, 1, 8)).astype(np.float32)
    for unit, raw in ((BottleneckUnit(2), True), (BottleneckUnit(3), False), (BottleneckUnit(2, activated=True), True)):
        v = drawn(unit, x)
        first = x if unit.activated else norm_relu(x, v, "norm1")
        y = first @ v["params"]["conv1"]["kernel"][0, 0]
        y = norm_relu(y, v, "norm2") @ v["params"]["conv2"]["kernel"][1, 1]  # one pixel sees the centre only
        y = norm_relu(y, v, "norm3") @ v["params"]["conv3"]["kernel"][0, 0]
        around = x if raw else first @ v["params"]["project"]["kernel"][0, 0]
        assert ("project" in v["params"]) != raw
        np.testing.assert_allclose(quick_apply(unit, v, x, train=False), y + around, rtol=1e-4, atol=1e-4)


def test_a_basic_unit_is_what_the_paper_draws():
    x = np.random.default_rng(0).standard_normal((2, 1, 1, 8)).astype(np.float32)
    for unit, raw in ((BasicUnit(8), True), (BasicUnit(6), False), (BasicUnit(8, activated=True), True)):
        v = drawn(unit, x)
        first = x if unit.activated else norm_relu(x, v, "norm1")
        y = norm_relu(first @ v["params"]["conv1"]["kernel"][1, 1], v, "norm2") @ v["params"]["conv2"]["kernel"][1, 1]
        around = x if raw else first @ v["params"]["project"]["kernel"][0, 0]
        np.testing.assert_allclose(quick_apply(unit, v, x, train=False), y + around, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["preresnet18", "resnetv2_18"])
def test_eighteen_layers_have_seventeen_norms(name):
    layers = structure(create_model(name), IMAGE).layers
    assert sum(layer.kind == "BatchNorm" for layer in layers) == 17
    assert not any("norm" in layer.path for layer in layers if "project" in layer.path)


def test_the_paper_activates_before_the_first_paths_split_and_timm_after():
    paper, timm = (structure(create_model(name), IMAGE) for name in ("preresnet18", "resnetv2_18"))
    norms = [next(layer for layer in found.layers if layer.kind == "BatchNorm") for found in (paper, timm)]
    assert [(norm.path, norm.shape) for norm in norms] == [
        ("stem_norm", (112, 112, 64)),
        ("stage1_block1/norm1", (56, 56, 64)),
    ]


def test_on_the_side_of_the_pool_alone_the_two_stems_agree():
    # A max pool commutes with an increasing function, so with a positive scale; and a projected
    # first unit sees only activations.
    x = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    paper, timm = (PreResNet((1, 1), BottleneckUnit, early_activation=early, num_classes=5) for early in (True, False))
    v = drawn(paper, x)
    moved = jax.tree.map(lambda leaf: leaf, v)
    for collection in ("params", "batch_stats"):
        moved[collection]["stage1_block1"]["norm1"] = moved[collection].pop("stem_norm")
    first = moved["params"]["stage1_block1"]["norm1"]
    v["params"]["stem_norm"] = moved["params"]["stage1_block1"]["norm1"] = first | {"scale": jnp.abs(first["scale"])}
    np.testing.assert_allclose(
        quick_apply(paper, v, x, train=False), quick_apply(timm, moved, x, train=False), rtol=1e-4, atol=1e-4
    )


def test_the_last_sum_is_normalised_and_rectified_before_the_average():
    model = PreResNet((1,), stem="cifar", width=4, num_classes=0)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    v = drawn(model, x)
    features, state = quick_apply(model, v, x, train=False, mutable=["intermediates"])
    taps = state["intermediates"]["taps"]
    np.testing.assert_allclose(taps["final"], norm_relu(np.asarray(taps["stage1"]), v, "norm"), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features, taps["final"].mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(("name", "layers"), [("preresnet110_cifar", 110), ("preresnet164_cifar", 164)])
def test_cifar_nets_have_the_layers_of_their_name(name, layers):
    found = structure(create_model(name), SMALL)
    assert sum(layer.macs > 0 and "project" not in layer.path for layer in found.layers) == layers
    assert round(found.params / 1e6, 1) == 1.7  # as resnet110_cifar: table 6 of 1512.03385


def test_bottlenecks_halve_the_image_in_the_3x3_or_if_asked_in_the_first_1x1():
    shapes = {layer.path: layer.shape for layer in structure(create_model("preresnet164_cifar"), SMALL).layers}
    assert shapes["stage2_block1/conv1"] == (32, 32, 32) and shapes["stage2_block1/conv2"] == (16, 16, 32)
    unit = partial(BottleneckUnit, stride_first=True)
    authors = structure(create_model("preresnet164_cifar", unit=unit), SMALL)
    assert {layer.path: layer.shape for layer in authors.layers}["stage2_block1/conv1"] == (16, 16, 32)
    assert shapes["stage3_block18/conv3"] == (8, 8, 256)
    shapes = {layer.path: layer.shape for layer in structure(create_model("preresnet50"), IMAGE).layers}
    assert shapes["stage2_block1/conv1"] == (56, 56, 128)


def test_resnet_200_has_sixteen_units_more_than_152_all_at_28x28():
    shallow, deep = (structure(create_model(f"preresnet{depth}"), IMAGE).layers for depth in (152, 200))
    new = {layer.path: layer for layer in deep if layer.path not in {layer.path for layer in shallow}}
    assert {layer.shape[:2] for layer in new.values()} == {(28, 28)}
    assert sum(path.endswith("conv3") for path in new) == 16


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_small_stem_keeps_the_size_of_small_images(size):
    taps = structure(create_model("preresnet18", stem="cifar", num_classes=10), (size, size, 1)).taps
    assert taps["stem"] == taps["stage1"] == (size, size, 64)


def test_squeeze_and_excitation_ends_every_branch():
    found = structure(create_model("preresnet18", se_reduction=16), IMAGE)
    assert sum(layer.path.endswith("se/reduce") for layer in found.layers) == 8
