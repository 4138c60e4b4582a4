from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import UserError, create_model, extract_features, lowering, model_info

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
