"""Every network against what torchvision, timm or Keras gives for the same weights and images."""

import contextlib
from functools import partial

import chex
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import create_model, export_state_dict, import_state_dict, list_models, model_info
from cnn_jax.data.order import Timeline
from cnn_jax.recipes import Optimizer, Recipe, Schedule
from cnn_jax.training.program import Program
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import train_step
from cnn_jax.weights.keras_layout import from_keras, to_keras
from cnn_jax.weights.names import BGR

BY_REFERENCE = {reference: name for name in list_models() for reference in model_info(name).references}


LARGE = (  # half a minute and more each; the first four have a sibling among the others
    "torchvision.vgg16_bn", "torchvision.wide_resnet50_2", "timm.seresnet50", "timm.inception_v4",
    "timm.legacy_senet154", "timm.inception_resnet_v2", "timm.nasnetalarge", "timm.pnasnet5large", "timm.senet154",
    "keras.VGG16", "keras.InceptionResNetV2", "keras.NASNetLarge",
)  # fmt: skip
# Small, and of 64 pixels, but others of their family are among the fast tests.
FURTHER = (
    "torchvision.mobilenet_v3_large", "timm.mobilenetv3_small_050", "timm.mobilenetv3_large_075",
    "timm.semnasnet_075", "timm.dpn68", "timm.dpn92", "timm.resnet50s", "timm.seresnext26d_32x4d", "timm.densenet264d",
    "keras.DenseNet121", "keras.InceptionV3", "keras.Xception", "keras.NASNetMobile",
    "keras.MobileNetV3Small(alpha=0.75)", "keras.MobileNetV3Large",
)  # fmt: skip
# Their logits are compared in the fast tests; their gradients come by the same layers as a cheaper network's.
SIBLINGS = {
    "torchvision.vgg11": "torchvision.alexnet",
    "torchvision.resnet50": "torchvision.resnext50_32x4d",
    "torchvision.inception_v3": "torchvision.googlenet",
    "torchvision.mobilenet_v2": "timm.mobilenetv1_100",
    "timm.legacy_xception": "timm.mobilenetv1_100",
    "timm.xception41": "timm.mobilenetv1_100",
    "torchvision.densenet121": "torchvision.googlenet",
    "timm.dpn68b": "torchvision.googlenet",
    "timm.legacy_seresnet50": "torchvision.mobilenet_v3_small",
    "torchvision.mnasnet0_5": "torchvision.mobilenet_v3_small",
    "timm.resnet18d": "torchvision.resnet18",
    "timm.resnetv2_18d": "timm.resnetv2_50",
    "timm.mobilenetv1_100h": "timm.mobilenetv1_100",
    "pretrainedmodels.nasnetamobile": "timm.mobilenetv1_100",
}


def cases(references, slow):
    return [pytest.param(r, marks=pytest.mark.slow) if r in slow else r for r in references]


@pytest.fixture(scope="module", params=cases(golden_files.references(), (*LARGE, *FURTHER)))
def case(request):
    """Reference, model, its variables, the file and its state dict; one at a time, for they are large."""
    reference = request.param
    name, golden = BY_REFERENCE[reference], golden_files.load(reference)
    state_dict = golden_files.weights(golden)
    variables = import_state_dict(name, state_dict)
    options = {"batch_norm": {"unbiased": True}} if "batch_stats" in variables else {}
    return reference, create_model(name, dropout=0.0, **options), variables, golden, state_dict


def assert_within(actual, expected, tolerance):
    """The largest difference, relative to the largest expected magnitude."""
    assert np.abs(actual - expected).max() / np.abs(expected).max() < tolerance


def test_evaluation_logits_are_the_references(case):
    reference, model, variables, golden, _ = case
    images = golden_files.images(0, 2, int(golden["input_size"]))
    images = images[..., ::-1] if reference in BGR else images  # theirs are blue, green, red
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    assert_within(logits, golden["logits"], max(2e-5, 10 * golden["noise"][0]))


# A ReLU's argument lies within rounding of 0: images that differ by a millionth have gradients that differ by 3 %, and
# a processor that rounds otherwise has the others (Intel with AMX, by oneDNN). Of a few nudges one has the reference's.
KINKED = {"torchvision.shufflenet_v2_x0_5"}


@pytest.mark.parametrize(
    "case", cases(golden_files.trained(), (*LARGE, *FURTHER, *SIBLINGS)), indirect=True, scope="module"
)
def test_one_training_step_is_the_references(case):
    reference, model, variables, golden, _ = case
    images, labels = golden_files.images(2, 4, int(golden["input_size"])), jnp.arange(1, 5)

    @jax.jit
    def step(variables, images):
        def loss(params):
            logits, changed = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), (logits, changed)

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (loss, (logits, changed)), grads = step(variables, images)
    assert_within(logits, golden["train_logits"], max(2e-5, 10 * golden["noise"][1]))
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-4)

    for seed in range(8 if reference in KINKED else 0):
        with contextlib.suppress(AssertionError):
            return assert_gradients_and_statistics({"params": grads} | changed, golden, reference)
        nudged = images + 1e-6 * jax.random.normal(jax.random.key(seed), images.shape)
        (_, (_, changed)), grads = step(variables, nudged)
    assert_gradients_and_statistics({"params": grads} | changed, golden, reference)


def assert_gradients_and_statistics(found, golden, reference):
    """Gradients, as `params`, and `batch_stats`; exported they bear the reference's names."""
    after = export_state_dict(BY_REFERENCE[reference], found, reference=reference)
    norms = {key: np.linalg.norm(value.astype(np.float64)) for key, value in after.items()}
    expected = dict(zip(golden["grad_keys"].tolist(), golden["grad_norms"].tolist(), strict=True))
    floor, tolerance = max(expected.values()) / 1000, max(1e-3, 10 * golden["noise"][2])
    for key, value in expected.items():
        assert abs(norms[key] - value) < tolerance * max(value, floor), key
    for key, value in zip(golden["stat_keys"].tolist(), golden["stat_means"].tolist(), strict=True):
        np.testing.assert_allclose(after[key].mean(dtype=np.float64), value, rtol=1e-4, atol=1e-4, err_msg=key)


def test_export_is_the_exact_way_back(case):
    reference, _, variables, golden, state_dict = case
    back = export_state_dict(BY_REFERENCE[reference], variables, reference=reference)
    assert set(back) == set(golden["keys"].tolist())
    if reference.startswith("keras."):  # but for idle biases, which come back as 0
        state_dict = to_keras(from_keras(state_dict, reference), reference)
    for key, value in state_dict.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)


@pytest.mark.parametrize(
    "reference",
    [
        "torchvision.resnet18",
        pytest.param("timm.mobilenetv1_100", marks=pytest.mark.slow),
        pytest.param("torchvision.googlenet", marks=pytest.mark.slow),
    ],
)
def test_what_train_py_compiles_trains_as_the_reference(reference):
    """Loss, gradients and moved statistics of train_step itself; SGD's first momentum is the gradient."""
    name, golden = BY_REFERENCE[reference], golden_files.load(reference)
    variables = import_state_dict(name, golden_files.weights(golden))
    model = create_model(name, dropout=0.0, batch_norm={"unbiased": True})
    size = int(golden["input_size"])
    moves = {"optimizer": Optimizer(lr=0.1, momentum=0.9), "schedule": Schedule(kind="constant")}
    config = Recipe(model=name, aux_weight=0.0, **moves)  # the reference's loss is the main head's
    program = Program(config, Timeline(4, 4, 1), classes=1000, channels=3)
    vars(program)["apply"] = model.apply  # in place of what is cached
    vars(program.task)["preprocess"] = lambda images, key: golden_files.images(2, 4, size)
    state = TrainState.create(variables, program.optimizer, jax.random.key(0))
    batch = {"image": jnp.zeros((4, size, size, 3), jnp.uint8), "label": jnp.arange(1, 5)}
    state, metrics = jax.jit(partial(train_step, program))(state, batch)
    np.testing.assert_allclose(metrics["loss"], golden["loss"], rtol=1e-4)
    grads = optax.tree.get(state.opt_state, "trace")
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(golden["grad_norms"]), rtol=1e-3)
    assert_gradients_and_statistics({"params": grads, "batch_stats": state.batch_stats}, golden, reference)
    moved = jax.tree.map(lambda w, g: w - np.float32(0.1) * g, variables["params"], grads)
    chex.assert_trees_all_close(state.params, moved, rtol=1e-6, atol=1e-7)
