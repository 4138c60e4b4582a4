import warnings

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from quick_jit import quick_apply

from cnn_jax import UserError, create_model, export_state_dict, import_state_dict
from cnn_jax.weights.keras_layout import from_keras, to_keras
from cnn_jax.weights.layout import Entry

REFERENCE = "torchvision.resnet18"


@pytest.fixture(scope="module")
def state_dict():
    return golden_files.weights(golden_files.load(REFERENCE))


def test_a_kernel_is_the_weight_with_its_axes_in_our_order(state_dict):
    variables = import_state_dict("resnet18", state_dict)
    np.testing.assert_array_equal(
        variables["params"]["stem"]["conv"]["kernel"], np.transpose(state_dict["conv1.weight"], (2, 3, 1, 0))
    )
    np.testing.assert_array_equal(variables["params"]["head"]["kernel"], state_dict["fc.weight"].T)
    norm = variables["batch_stats"]["stage2_block1"]["conv2"]["norm"]
    np.testing.assert_array_equal(norm["var"], state_dict["layer2.0.bn2.running_var"])
    np.testing.assert_array_equal(norm["mean"], state_dict["layer2.0.bn2.running_mean"])


def test_a_flattened_weight_unfolds_channels_first():
    """AlexNet's first fully connected layer reads (256, 6, 6), channels first (torch.flatten)."""
    state_dict = golden_files.weights(golden_files.load("torchvision.alexnet"))
    kernels = flatten_dict(import_state_dict("alexnet_owt", state_dict)["params"])
    (kernel,) = (np.asarray(k) for k in kernels.values() if k.shape == (6, 6, 256, 4096))
    weight = next(w for w in state_dict.values() if w.shape == (4096, 9216))
    x = np.random.default_rng(0).standard_normal((256, 6, 6)).astype(np.float32)
    ours = np.einsum("hwc,hwco->o", x.transpose(1, 2, 0), kernel)
    np.testing.assert_allclose(ours, weight @ x.reshape(-1), rtol=1e-3, atol=1e-3)


def test_the_prefix_of_data_parallel_training_is_ignored(state_dict):
    wrapped = import_state_dict("resnet18", {f"module._orig_mod.{key}": value for key, value in state_dict.items()})
    plain = import_state_dict("resnet18", state_dict)
    jax.tree.map(np.testing.assert_array_equal, wrapped, plain)


def test_wrong_orders_of_axes_are_refused(state_dict):
    """They have the right number of values, and would scramble the weights."""
    for shape in ((64, 7, 7, 3), (64, 3, 49), (64, 147, 1, 1), (3, 64, 7, 7)):
        with pytest.raises(UserError, match="conv1.weight"):
            import_state_dict("resnet18", state_dict | {"conv1.weight": np.zeros(shape)})


def test_image_channels_are_the_files(state_dict):
    grey = state_dict | {"conv1.weight": state_dict["conv1.weight"].sum(1, keepdims=True)}
    variables = import_state_dict("resnet18", grey)
    assert variables["params"]["stem"]["conv"]["kernel"].shape == (7, 7, 1, 64)
    np.testing.assert_array_equal(export_state_dict("resnet18", variables)["conv1.weight"], grey["conv1.weight"])


def test_a_backbone_without_a_head_loads_if_the_classes_are_said(state_dict):
    backbone = {key: value for key, value in state_dict.items() if not key.startswith("fc.")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variables = import_state_dict("resnet18", backbone, num_classes=0)
    assert set(export_state_dict("resnet18", variables, num_classes=0)) == set(backbone)
    with pytest.warns(UserWarning, match="for 0 classes; the head for 5 is newly drawn"):
        assert import_state_dict("resnet18", backbone, num_classes=5)["params"]["head"]["bias"].shape == (5,)
    with pytest.raises(UserError, match=r"it misses fc\.bias, fc\.weight"):
        import_state_dict("resnet18", backbone)


def test_vectors_may_have_an_axis_of_one_before_them(state_dict):
    """Batch norms in files of PyTorch before 0.4, such as BN-Inception's."""
    old = {key: value[None] if value.ndim == 1 else value for key, value in state_dict.items()}
    variables = import_state_dict("resnet18", state_dict)
    jax.tree.map(np.testing.assert_array_equal, import_state_dict("resnet18", old), variables)


def test_number_types_of_files_become_float32(state_dict):
    variables = import_state_dict("resnet18", {key: value.astype(np.float16) for key, value in state_dict.items()})
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ("resnet50.pth", r"this is a str; read_state_dict\(path\) reads a file"),
        ({"fc.bias": "text"}, "fc.bias in the state dict is no array of real numbers"),
        ({"fc.bias": [[1, 2], [3]]}, "fc.bias in the state dict is no array"),
        ({"fc.bias": np.zeros(3, complex)}, "fc.bias in the state dict is no array of real numbers, but of complex128"),
        ({"fc.bias": np.zeros(3), "module.fc.bias": np.zeros(3)}, "the state dict has fc.bias twice"),
        ({}, "it misses .* and 97 more"),
    ],
)
def test_what_is_no_state_dict_is_told(broken, line):
    with pytest.raises(UserError, match=line):
        import_state_dict("resnet18", broken)


def test_half_a_head_is_no_head(state_dict):
    variables = import_state_dict("resnet18", state_dict)
    del variables["params"]["head"]["bias"]
    with pytest.raises(UserError, match="they lack params/head/bias"):
        export_state_dict("resnet18", variables)


def test_missing_surplus_and_misshapen_keys_are_named(state_dict):
    broken = dict(state_dict)
    del broken["layer1.0.conv1.weight"]
    broken["layer9.weight"] = np.zeros(3)
    broken["conv1.weight"] = np.zeros((64, 3, 5, 5))
    with pytest.raises(UserError) as error:
        import_state_dict("resnet18", broken)
    assert str(error.value) == (
        "this state dict is not one of torchvision.resnet18 (resnet18): it misses layer1.0.conv1.weight; "
        "it has besides layer9.weight; it has conv1.weight (64, 3, 5, 5) instead of (64, 3, 7, 7)"
    )


def test_a_long_list_of_keys_is_cut(state_dict):
    with pytest.raises(UserError, match=r"it has besides .* and \d+ more"):
        import_state_dict("resnet18", state_dict | {f"x{i}": np.zeros(1) for i in range(30)})


def test_another_number_of_classes_keeps_everything_but_the_head(state_dict):
    with pytest.warns(UserWarning, match="the weights are for 1000 classes; the head for 7 is newly drawn"):
        variables = import_state_dict("resnet18", state_dict, num_classes=7, key=jax.random.key(1))
    whole = import_state_dict("resnet18", state_dict)
    assert variables["params"]["head"]["kernel"].shape == (512, 7)
    assert np.std(variables["params"]["head"]["kernel"]) > 0
    np.testing.assert_array_equal(
        variables["params"]["stage4_block2"]["conv2"]["conv"]["kernel"],
        whole["params"]["stage4_block2"]["conv2"]["conv"]["kernel"],
    )
    model = create_model("resnet18", num_classes=7)
    assert quick_apply(model, variables, jnp.zeros((1, 64, 64, 3)), train=False).shape == (1, 7)


def test_zero_classes_leave_the_head_out(state_dict):
    with pytest.warns(UserWarning, match="the head is left out"):
        variables = import_state_dict("resnet18", state_dict, num_classes=0)
    assert "head" not in variables["params"]
    model = create_model("resnet18", num_classes=0)
    assert quick_apply(model, variables, jnp.zeros((1, 64, 64, 3)), train=False).shape == (1, 512)


def test_the_files_number_of_classes_counts_if_none_is_given(state_dict):
    small = state_dict | {"fc.weight": np.zeros((5, 512)), "fc.bias": np.zeros(5)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variables = import_state_dict("resnet18", small)
    assert variables["params"]["head"]["kernel"].shape == (512, 5)
    assert export_state_dict("resnet18", variables)["fc.weight"].shape == (5, 512)


def test_a_network_without_a_reference_says_so(state_dict):
    with pytest.raises(UserError, match="plain18 has no published weights"):
        import_state_dict("plain18", state_dict)
    with pytest.raises(UserError, match=r"unknown reference of resnet18 'timm.resnet50'"):
        import_state_dict("resnet18", state_dict, reference="timm.resnet50")


def test_options_that_add_layers_are_told(state_dict):
    with pytest.raises(UserError, match="torchvision.vgg11 has no layer for stage1/se1/expand, which vgg11 has with"):
        import_state_dict("vgg11", state_dict, reference="torchvision.vgg11", se_reduction=16)


def test_exporting_foreign_variables_is_told(state_dict):
    variables = import_state_dict("resnet18", state_dict)
    with pytest.raises(UserError, match="these are not variables of resnet34: they lack"):
        export_state_dict("resnet34", variables)


def test_auxiliary_heads_may_be_absent():
    golden = golden_files.load("torchvision.googlenet")
    state_dict = golden_files.weights(golden)
    without = {key: value for key, value in state_dict.items() if not key.startswith("aux")}
    variables = import_state_dict("googlenet_bn", without)
    assert not any(name.startswith("aux") for name in variables["params"])
    model = create_model("googlenet_bn")
    images = golden_files.images(0, 2, 224)
    logits = quick_apply(model, variables, images, train=False)
    assert np.abs(logits - golden["logits"]).max() < 2e-5 * np.abs(golden["logits"]).max()
    with pytest.warns(UserWarning, match="the head is left out"):
        features = import_state_dict("googlenet_bn", state_dict, num_classes=0)
    assert not any(name.startswith("aux") or name == "head" for name in features["params"])
    dropped = import_state_dict("googlenet_bn", state_dict, aux=False)
    assert jax.tree.structure(dropped) == jax.tree.structure(variables)


def test_keras_flattens_channels_last():
    """As VGG's fc1 sees a map of 7x7; small here."""
    x, dense = np.random.default_rng(0).standard_normal((2, 3, 4)), np.random.default_rng(1).standard_normal((24, 5))
    entry = Entry("fc1/kernel", dense.shape, (2, 3, 4, 5), keras=True)
    kernel = entry.load(dense)
    np.testing.assert_allclose(np.einsum("hwc,hwco->o", x, kernel), x.reshape(-1) @ dense, rtol=1e-5)
    np.testing.assert_array_equal(entry.save(kernel), dense.astype(np.float32))
    assert not entry.admits((2, 3, 4, 5)) and not entry.admits((5, 24))


def norm(y, arrays, name):
    """Keras's batch norm in evaluation, epsilon 0."""
    y = (y - arrays[f"{name}/moving_mean"]) / np.sqrt(arrays[f"{name}/moving_variance"])
    return arrays.get(f"{name}/gamma", 1) * y + arrays[f"{name}/beta"]


@pytest.mark.parametrize(
    ("reference", "conv", "bn"),
    [
        ("keras.ResNet50", "conv1_conv", "conv1_bn"),
        ("keras.InceptionV3", "conv2d_12", "batch_normalization_12"),
        ("keras.InceptionResNetV2", "conv_7b", "conv_7b_bn"),
    ],
)
def test_what_keras_has_before_a_norm_or_lacks_in_it_changes_no_value(reference, conv, bn):
    def evaluate(arrays):
        return norm(x @ arrays[f"{conv}/kernel"] + arrays.get(f"{conv}/bias", 0), arrays, bn)

    rng = np.random.default_rng(0)
    x, bias, gamma = rng.standard_normal((6, 3)), rng.uniform(0.5, 2, 4), rng.uniform(0.5, 2, 4)
    shared = {f"{bn}/{leaf}": rng.uniform(0.5, 2, 4) for leaf in ("moving_mean", "moving_variance", "beta")}
    shared[f"{conv}/kernel"] = rng.standard_normal((3, 4))
    ours = shared | {f"{bn}/gamma": gamma}
    theirs = ours | {f"{conv}/bias": bias} if "ResNet50" in reference else shared
    for arrays, moved, like in ((theirs, from_keras, ours), (ours, to_keras, theirs)):
        found = moved(arrays, reference)
        assert set(found) == set(like)
        np.testing.assert_allclose(evaluate(found), evaluate(arrays))


def test_a_keras_file_says_its_classes_and_channels():
    """Of one channel: then the first kernel looks like a depthwise one, and is none."""
    state_dict = golden_files.weights(golden_files.load("keras.MobileNet(alpha=0.25)"))
    state_dict["conv1/kernel"] = state_dict["conv1/kernel"].sum(2, keepdims=True)
    state_dict |= {"conv_preds/kernel": np.ones((1, 1, 256, 7)), "conv_preds/bias": np.ones(7)}
    variables = import_state_dict("mobilenet_025_keras", state_dict)
    assert variables["params"]["stem"]["conv"]["kernel"].shape == (3, 3, 1, 8)
    assert variables["params"]["head"]["kernel"].shape == (256, 7)
    back = export_state_dict("mobilenet_025_keras", variables)
    assert {key: value.shape for key, value in back.items()} == {key: value.shape for key, value in state_dict.items()}
    with pytest.raises(UserError, match=r"it has conv1/kernel \(8, 3, 3, 3\) instead of \(3, 3, 3, 8\)"):
        import_state_dict("mobilenet_025_keras", state_dict | {"conv1/kernel": np.zeros((8, 3, 3, 3))})
