import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UserError, create_model, extract_features, model_info

X = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
MODEL = create_model("resnet18", num_classes=10, stem="cifar")
VARIABLES = MODEL.init(jax.random.key(0), X, train=False)


def test_all_taps_come_without_names():
    features = extract_features(MODEL, VARIABLES, X)
    assert {name: f.shape for name, f in features.items()} == {
        "stem": (2, 32, 32, 64),
        "stage1": (2, 32, 32, 64),
        "stage2": (2, 16, 16, 128),
        "stage3": (2, 8, 8, 256),
        "stage4": (2, 4, 4, 512),
    }


def test_names_choose_taps_and_layers():
    features = extract_features(MODEL, VARIABLES, X, ["stage3", "stage2_block1/conv1", "head"])
    assert list(features) == ["stage3", "stage2_block1/conv1", "head"]
    assert features["stage2_block1/conv1"].shape == (2, 16, 16, 128)
    np.testing.assert_array_equal(features["head"], MODEL.apply(VARIABLES, X, train=False))


def test_a_single_name_needs_no_list():
    assert list(extract_features(MODEL, VARIABLES, X, "stage2")) == ["stage2"]


def test_a_layers_activation_is_what_flows_through_the_network():
    features = extract_features(MODEL, VARIABLES, X, ["stage4", "stage4_block2"])
    np.testing.assert_array_equal(features["stage4"], features["stage4_block2"])
    pooled = features["stage4"].mean((1, 2))
    head = VARIABLES["params"]["head"]
    np.testing.assert_allclose(
        pooled @ head["kernel"] + head["bias"], MODEL.apply(VARIABLES, X, train=False), rtol=1e-4, atol=1e-5
    )


def test_what_is_not_asked_for_costs_nothing():
    def flops(function):
        return jax.jit(function).lower(VARIABLES, X).compile().cost_analysis()["flops"]

    whole = flops(lambda v, x: MODEL.apply(v, x, train=False))
    assert flops(lambda v, x: extract_features(MODEL, v, x, ["stem"])) < whole / 50


def test_an_unknown_name_is_told_with_near_ones():
    with pytest.raises(UserError, match=r"unknown feature 'stage5'; did you mean stage4"):
        extract_features(MODEL, VARIABLES, X, ["stage5"])
    with pytest.raises(UserError, match=r"did you mean stage2_block1/conv1"):
        extract_features(MODEL, VARIABLES, X, ["stage2_blok1/conv1"])


def test_the_card_says_channels_and_strides():
    features = model_info("resnet50").features
    assert [(f.name, f.channels, f.stride) for f in features] == [
        ("stem", 64, 2), ("stage1", 256, 4), ("stage2", 512, 8), ("stage3", 1024, 16), ("stage4", 2048, 32),
    ]  # fmt: skip


def test_features_come_in_the_compute_type():
    model = create_model("resnet18", num_classes=0, stem="cifar", dtype=jnp.bfloat16)
    assert extract_features(model, VARIABLES, X, ["stage1"])["stage1"].dtype == jnp.bfloat16
