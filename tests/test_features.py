from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import UserError, create_model, extract_features, lowering, model_info
from cnn_jax.models.resnet import ResNet

X = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
MODEL = create_model("resnet18", num_classes=10, stem="cifar")


@pytest.fixture(scope="module")
def variables():
    return quick_init(MODEL, X, train=False)


def extract(variables, names=None, model=MODEL):
    """extract_features as one program, which gives a dict with its keys sorted."""
    return quick_jit(partial(extract_features, model, names=names))(variables, X)


def test_all_taps_come_without_names(variables):
    features = extract(variables)
    assert {name: f.shape for name, f in features.items()} == {
        "stem": (2, 32, 32, 64),
        "stage1": (2, 32, 32, 64),
        "stage2": (2, 16, 16, 128),
        "stage3": (2, 8, 8, 256),
        "stage4": (2, 4, 4, 512),
    }


def test_names_choose_taps_and_layers_and_their_order(variables):
    names, order = ["stage3", "stage2_block1/conv1", "head"], []

    def run(variables):
        features = extract_features(MODEL, variables, X, names)
        order.extend(features)
        return features

    features = quick_jit(run)(variables)
    assert order == names and set(features) == set(names)
    assert features["stage2_block1/conv1"].shape == (2, 16, 16, 128)
    np.testing.assert_array_equal(features["head"], quick_apply(MODEL, variables, X, train=False))


def test_a_single_name_needs_no_list(variables):
    assert list(jax.eval_shape(lambda v: extract_features(MODEL, v, X, "stage2"), variables)) == ["stage2"]


def test_a_layers_activation_is_what_flows_through_the_network(variables):
    features = extract(variables, ["stage4", "stage4_block2", "head"])
    np.testing.assert_array_equal(features["stage4"], features["stage4_block2"])
    pooled = features["stage4"].mean((1, 2))
    head = variables["params"]["head"]
    np.testing.assert_allclose(pooled @ head["kernel"] + head["bias"], features["head"], rtol=1e-4, atol=1e-5)


def test_it_needs_no_jit():
    model = create_model("lenet5_modern")
    images = X[..., :1]
    variables = quick_init(model, images, train=False)
    features = extract_features(model, variables, images, ["head", "c1"])
    assert list(features) == ["head", "c1"]
    np.testing.assert_allclose(features["head"], quick_apply(model, variables, images, train=False), rtol=1e-4)


def test_what_is_not_asked_for_costs_nothing(variables):
    def flops(function):
        with lowering("xla"):  # whose operations XLA can count
            return quick_jit(function).lower(variables, X).compile().cost_analysis()["flops"]

    whole = flops(lambda v, x: MODEL.apply(v, x, train=False))
    assert flops(lambda v, x: extract_features(MODEL, v, x, ["stem"])) < whole / 50


def test_an_unknown_name_is_told_with_near_ones(variables):
    def look(name):
        jax.eval_shape(lambda v: extract_features(MODEL, v, X, [name]), variables)

    with pytest.raises(UserError, match=r"unknown feature 'stage5'; did you mean stage4"):
        look("stage5")
    with pytest.raises(UserError, match=r"did you mean stage2_block1/conv1"):
        look("stage2_blok1/conv1")


def test_the_card_says_channels_and_strides():
    features = model_info("resnet50").features
    assert [(f.name, f.channels, f.stride) for f in features] == [
        ("stem", 64, 2), ("stage1", 256, 4), ("stage2", 512, 8), ("stage3", 1024, 16), ("stage4", 2048, 32),
    ]  # fmt: skip


def test_features_come_in_the_compute_type(variables):
    model = create_model("resnet18", num_classes=0, stem="cifar", dtype=jnp.bfloat16)
    assert extract(variables, ["stage1"], model)["stage1"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("name", "size", "taps"),
    [
        ("inception_v3", 96, ["conv_4a", "mixed_5d", "mixed_6e", "mixed_7c"]),  # unpadded: the last map is 1x1
        ("densenet121", 70, ["stage1", "stage2", "stage3", "final"]),
        ("mobilenetv2_035", 64, ["stage2", "stage3", "stage5", "final"]),
    ],
)
def test_strides_choose_the_last_tap_of_each(name, size, taps):
    model, images, order = create_model(name), jnp.zeros((1, size, size, 3)), []

    def run(variables):
        order.extend(extract_features(model, variables, images, strides=(4, 8, 16, 32)))

    jax.eval_shape(run, jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False)))
    assert order == taps


def test_strides_follow_the_options_of_the_network(variables):
    with pytest.raises(UserError, match="ResNet has no map of stride 16; its strides are 1, 2, 4, 8"):
        jax.eval_shape(lambda v: extract_features(MODEL, v, X, strides=(4, 16)), variables)
    with pytest.raises(UserError, match="names or strides, not both"):
        extract_features(MODEL, variables, X, "stem", strides=(4,))


def test_a_backbone_trains_through_its_features():
    """As in the network itself in training: activations, statistics that move, a gradient for each layer before."""
    model = ResNet((1, 1), stem="cifar", dropout=0.5)
    variables = quick_init(model, X, train=False)
    how = {"train": True, "rngs": {"dropout": jax.random.key(1)}}

    @quick_jit
    def run(variables):
        def loss(params):
            state = variables | {"params": params}
            features, moved = extract_features(model, state, X, ["stage2"], mutable=["batch_stats"], **how)
            return jnp.sin(features["stage2"]).sum(), (features["stage2"], moved)

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (_, (feature, moved)), grads = run(variables)
    kept = ["batch_stats", "intermediates"]
    _, expected = quick_jit(lambda v: model.apply(v, X, mutable=kept, **how))(variables)
    np.testing.assert_allclose(feature, expected["intermediates"]["taps"]["stage2"], rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(moved, {"batch_stats": expected["batch_stats"]}, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(moved["batch_stats"]["stem"]["norm"]["mean"], 0 * feature[0, 0, 0, :64])
    head = grads.pop("head")
    assert not np.any(head["kernel"]) and all(np.abs(grad).max() > 0 for grad in jax.tree.leaves(grads))
