from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init

from cnn_jax import create_model, model_info
from cnn_jax.layers import SqueezeExcite, Unit
from cnn_jax.models.inception_resnet import ResidualInception
from cnn_jax.models.structure import structure


def blocks(name):
    """Scale and activation of each residual block, in order."""
    found = {}

    def record(call, args, kwargs, context):
        if isinstance(block := context.module, ResidualInception):
            found[block.name] = (block.scale, block.act)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        image = jnp.zeros((1, *model_info(name).input_size))
        jax.eval_shape(partial(create_model(name).init, train=False), jax.random.key(0), image)
    return found


@pytest.mark.parametrize(
    ("name", "counts"), [("inception_resnet_v1", (5, 10, 6)), ("inception_resnet_v2", (10, 20, 10))]
)
def test_blocks_are_scaled_as_released_but_the_last_is_neither_scaled_nor_activated(name, counts):
    found = blocks(name)
    *rest, (_, last) = found.items()
    assert last == (1.0, None)
    for kind, count, scale in zip(("block35", "block17", "block8"), counts, (0.17, 0.10, 0.20), strict=True):
        assert sum(block.startswith(kind) for block in found) == count
        assert all(settings == (scale, nn.relu) for block, settings in rest if block.startswith(kind))


def test_v1_has_the_widths_of_the_paper():
    # Fig. 15 and the text: 35x35x256, 17x17x896, 8x8x1792 at 299 pixels.
    taps = structure(create_model("inception_resnet_v1"), (299, 299, 3)).taps
    assert [taps[name] for name in ("block35", "block17", "block8")] == [(35, 35, 256), (17, 17, 896), (8, 8, 1792)]


def test_v2_has_the_released_widths():
    taps = structure(create_model("inception_resnet_v2"), (299, 299, 3)).taps
    names = ("conv_2b", "conv_4a", "mixed_5b", "block35", "mixed_6a", "block17", "mixed_7a", "block8", "conv_7b")
    sizes = (147, 71, 35, 35, 17, 17, 8, 8, 8)
    channels = (64, 192, 320, 320, 1088, 1088, 2080, 2080, 1536)
    assert taps == {n: (s, s, c) for n, s, c in zip(names, sizes, channels, strict=True)}


def test_the_printed_v2_has_the_widths_and_counts_of_the_figures():
    """Fig. 3 to 384 channels, then 5, 10 and 5 blocks (fig. 15), all scaled and activated (fig. 16, 17, 19)."""
    taps = structure(create_model("inception_resnet_v2_fig15"), (299, 299, 3)).taps
    names = ("conv_2b", "mixed_3a", "mixed_4a", "mixed_5a", "block35", "mixed_6a", "block17", "mixed_7a", "block8")
    sizes = (147, 73, 71, 35, 35, 17, 17, 8, 8)
    channels = (64, 160, 192, 384, 384, 1152, 1152, 2144, 2144)
    assert taps == {n: (s, s, c) for n, s, c in zip(names, sizes, channels, strict=True)}
    found = blocks("inception_resnet_v2_fig15")
    assert [sum(b.startswith(kind) for b in found) for kind in ("block35_", "block17_", "block8_")] == [5, 10, 5]
    assert set(found.values()) == {(scale, nn.relu) for scale in (0.17, 0.10, 0.20)}


def test_a_block_adds_the_scaled_projection_to_its_input():
    block = ResidualInception(((Unit("one", 4),), (Unit("three_reduce", 3), Unit("three", 5, 3))), scale=0.2)
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 6)).astype(np.float32)
    variables = quick_init(block, x, train=False)
    assert variables["params"]["project"]["kernel"].shape == (1, 1, 9, 6)
    project = {"kernel": jnp.zeros((1, 1, 9, 6)), "bias": jnp.arange(6.0)}
    variables["params"]["project"] = project
    np.testing.assert_allclose(
        quick_apply(block, variables, x, train=False), np.maximum(x + 0.2 * np.arange(6), 0), rtol=1e-6, atol=1e-6
    )


def test_squeeze_excitation_gates_the_residual_not_the_sum():
    block = ResidualInception(((Unit("one", 4),),), 1.0, None, se=partial(SqueezeExcite, 2))
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 6)).astype(np.float32)
    variables = quick_init(block, x, train=False)
    variables["params"]["se"]["expand"]["bias"] -= 1e4  # shuts every gate
    np.testing.assert_array_equal(quick_apply(block, variables, x, train=False), x)


def test_squeeze_excitation_stands_in_residual_and_plain_modules():
    params = structure(create_model("inception_resnet_v1", se_reduction=16), (160, 160, 3)).variables["params"]
    assert params["block35_1"]["se"]["reduce"]["kernel"].shape == (256, 16)
    assert params["mixed_6a"]["se"]["reduce"]["kernel"].shape == (896, 56)


def test_faces_have_an_embedding_of_512_before_the_classifier():
    whole = structure(create_model("inception_resnet_v1"), (160, 160, 3))
    params = whole.variables["params"]
    assert params["embed"].keys() == {"kernel"}  # no bias: a norm follows
    assert params["embed"]["kernel"].shape == (1792, 512)
    assert params["head"]["kernel"].shape == (512, 8631)
    bare = structure(create_model("inception_resnet_v1", num_classes=0), (160, 160, 3))
    assert bare.output == (512,)
    assert bare.params == 23_482_624  # facenet_pytorch without its classifier


def test_dropout_acts_before_the_classifier_and_so_not_on_features():
    for name in ("inception_v4", "inception_resnet_v2"):
        x, model = jnp.zeros((1, 28, 28, 1)), create_model(name, stem="cifar", num_classes=0)
        shapes = structure(model, x.shape[1:]).variables
        # Without a key for dropout.
        features, _ = jax.eval_shape(partial(model.apply, train=True, mutable=["batch_stats"]), shapes, x)
        assert features.shape == (1, 1536)


def test_faces_enter_as_facenet_standardises_them():
    info = model_info("inception_resnet_v1")
    pixels = np.array([0.0, 127.5, 255.0])
    np.testing.assert_allclose((pixels / 255 - info.mean) / info.std, (pixels - 127.5) / 128)


@pytest.mark.parametrize("name", ["inception_resnet_v1", "inception_resnet_v2"])
@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_keeps_the_first_layers_at_full_size(name, size):
    taps = structure(create_model(name, stem="cifar"), (size, size, 1)).taps
    sizes = [taps[tap][0] for tap in ("conv_2b", "conv_4a", "block35", "block17", "block8")]
    assert sizes == [size, size // 2, size // 4, -(-size // 8), -(-size // 16)]
