from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import create_model
from cnn_jax.models.resnet import ResNet
from cnn_jax.models.structure import structure

IMAGE = (224, 224, 3)


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet34", (64, 128, 256, 512)), ("resnet50", (256, 512, 1024, 2048))]
)
def test_stages_have_the_sizes_of_table_1(name, channels):
    taps = structure(create_model(name), IMAGE).taps
    assert list(taps.values()) == [
        (112, 112, 64),
        *((size, size, width) for size, width in zip((56, 28, 14, 7), channels, strict=True)),
    ]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_weight_layers_outside_shortcuts_give_the_net_its_name(depth):
    layers = structure(create_model(f"resnet{depth}"), IMAGE).layers
    assert sum(layer.macs > 0 and "shortcut" not in layer.path for layer in layers) == depth


@pytest.mark.parametrize(("depth", "billions"), [(50, 3.8), (101, 7.6), (152, 11.3)])
def test_the_authors_stride_costs_what_table_1_says(depth, billions):
    assert (
        abs(structure(create_model(f"resnet{depth}_v1"), IMAGE).macs / 1e9 - billions) < 0.07
    )  # 3.86 is printed as 3.8
    assert abs(structure(create_model(f"resnet{depth}"), IMAGE).macs / 1e9 - billions) > 0.2


def test_only_the_place_of_the_stride_differs_from_the_authors_net():
    ours, theirs = (structure(create_model(name), IMAGE) for name in ("resnet50", "resnet50_v1"))
    assert (ours.macs, theirs.macs) == (4_089_184_256, 3_857_973_248)
    assert jax.tree.map(jnp.shape, ours.variables) == jax.tree.map(jnp.shape, theirs.variables)
    shapes = {layer.path: layer.shape for layer in theirs.layers}
    assert shapes["stage3_block1/conv1/conv"] == (14, 14, 256)
    assert {layer.path: layer.shape for layer in ours.layers}["stage3_block1/conv1/conv"] == (28, 28, 256)


@pytest.mark.parametrize(
    ("name", "shortcut", "params", "macs"),
    [
        ("resnet18", "A", 11_515_688, 1_794_805_760),
        ("resnet18", "C", 12_043_816, 1_878_298_624),
        ("resnet34", "A", 21_623_848, 3_644_493_824),
        ("resnet34", "C", 22_716_840, 3_830_747_136),
    ],
)
def test_shortcuts_cost_what_a_count_of_the_paper_gives(name, shortcut, params, macs):
    found = structure(create_model(name, shortcut=shortcut), IMAGE)
    assert (found.params, found.macs) == (params, macs)


def test_a_plain_net_has_the_variables_of_shortcuts_without_parameters():
    plain, residual = (
        structure(create_model("plain34"), IMAGE),
        structure(create_model("resnet34", shortcut="A"), IMAGE),
    )
    assert jax.tree.map(jnp.shape, plain.variables) == jax.tree.map(jnp.shape, residual.variables)


def test_a_block_whose_branch_gives_zero_passes_its_input_on():
    model = create_model("resnet18", stem="cifar", num_classes=0).clone(stages=(2,))
    x = np.random.default_rng(0).standard_normal((1, 28, 28, 3)).astype(np.float32)
    variables = quick_init(model, x, train=False)
    norms = [variables["params"][f"stage1_block{i}"]["conv2"]["norm"] for i in (1, 2)]
    for norm in norms:
        norm["scale"] = jnp.zeros_like(norm["scale"])
    run = quick_jit(partial(model.apply, train=False, mutable=["intermediates"]))
    taps = run(variables, x)[1]["intermediates"]["taps"]
    np.testing.assert_array_equal(taps["stage1"], taps["stem"])


def test_resnext_blocks_have_the_widths_of_table_1():
    params = structure(create_model("resnext50_32x4d"), IMAGE).variables["params"]
    for i, width in enumerate((128, 256, 512, 1024), start=1):
        block = params[f"stage{i}_block2"]
        assert block["conv1"]["conv"]["kernel"].shape == (1, 1, 2 * width, width)
        assert block["conv2"]["conv"]["kernel"].shape == (3, 3, width // 32, width)


def test_wide_nets_double_the_inner_width_only():
    params = structure(create_model("wide_resnet50_2"), IMAGE).variables["params"]
    assert params["stage4_block1"]["conv2"]["conv"]["kernel"].shape == (3, 3, 1024, 1024)
    assert params["stage4_block1"]["conv3"]["conv"]["kernel"].shape == (1, 1, 1024, 2048)


def test_resnet50d_has_three_3x3_in_its_stem_and_averages_before_it_projects():
    found = structure(create_model("resnet50d"), IMAGE)
    stem = [layer.shape for layer in found.layers if layer.path.startswith("stem") and layer.macs]
    assert stem == [(112, 112, 32), (112, 112, 32), (112, 112, 64)]

    model = create_model("resnet50d", stem="cifar", num_classes=0).clone(stages=(1, 1))
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype(np.float32)
    variables = quick_init(model, x, train=False)
    run = partial(model.apply, train=False, capture_intermediates=True, mutable=["intermediates"])
    seen = quick_jit(run)(variables, x)[1]["intermediates"]
    means = np.asarray(seen["taps"]["stage1"]).reshape(1, 4, 2, 4, 2, -1).mean((2, 4))
    project = seen["stage2_block1"]["shortcut"]["project"]["conv"]["__call__"][0]
    kernel = variables["params"]["stage2_block1"]["shortcut"]["project"]["conv"]["kernel"]
    np.testing.assert_allclose(project, means @ kernel[0, 0], rtol=1e-4, atol=1e-4)


def test_weights_start_as_he_draws_them():
    model = create_model("resnet18", num_classes=0).clone(stages=(1,))
    kernel = quick_init(model, jnp.zeros((1, 32, 32, 3)), train=False)["params"]["stage1_block1"]["conv2"]
    kernel = np.asarray(kernel["conv"]["kernel"])  # 36,864 values: a standard error of 0.4%
    assert abs(kernel.std() / np.sqrt(2 / (9 * 64)) - 1) < 0.02
    assert abs(kernel.mean()) < 0.001


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_small_stem_keeps_the_size_of_small_images(size):
    taps = structure(create_model("resnet18", stem="cifar", num_classes=10), (size, size, 1)).taps
    assert taps["stem"] == taps["stage1"] == (size, size, 64)


def test_caffes_pool_has_no_padding_and_a_hanging_window():
    model = create_model("resnet18", caffe_pool=True, num_classes=0).clone(stages=())
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 3)).astype(np.float32)
    variables = quick_init(model, x, train=False)
    pooled, state = model.apply(variables, x, train=False, mutable=["intermediates"])
    stem = np.asarray(state["intermediates"]["taps"]["stem"])[0]  # (8, 8, 64)
    windows = [stem[i : i + 3, j : j + 3].max((0, 1)) for i in range(0, 8, 2) for j in range(0, 8, 2)]
    np.testing.assert_allclose(pooled[0], np.mean(windows, 0), rtol=1e-5)


def test_the_stem_by_blocks_is_the_same_function_of_the_same_parameters():
    plain, by_blocks = (ResNet((1,), stem=stem, num_classes=0) for stem in ("imagenet", "space_to_depth"))
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = quick_init(plain, x, train=False)
    described = jax.eval_shape(partial(by_blocks.init, train=False), jax.random.key(0), x)
    chex.assert_trees_all_equal_shapes(variables, described)
    np.testing.assert_allclose(
        *(quick_apply(net, variables, x, train=False) for net in (plain, by_blocks)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("name", "params"), [("resnet18", 1_785_336), ("resnet50", 4_100_232)])
def test_a_narrow_network_has_the_parameters_of_timms(name, params):
    """timm 1.0.31: ResNet(BasicBlock or Bottleneck, layers, channels=(24, 48, 96, 192))."""
    assert structure(create_model(name, width=24), (224, 224, 3)).params == params
