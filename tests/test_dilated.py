"""Networks of output stride 16 and 8 against torchvision's and timm's, and against themselves where they halve."""

from functools import partial

import golden_files
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init
from test_golden import BY_REFERENCE, assert_within

from cnn_jax import UserError, create_model, import_state_dict, list_models
from cnn_jax.layers import stage_strides
from cnn_jax.models.mobilenet import MobileNetV1
from cnn_jax.models.mobilenet_v2 import MobileNetV2
from cnn_jax.models.preresnet import BottleneckUnit, PreResNet
from cnn_jax.models.resnet import STRIDE_FIRST, BasicBlock, ResNet
from cnn_jax.models.structure import structure

with np.load(golden_files.FOLDER / "dilated" / "logits.npz") as file:
    LOGITS, NOISE = (dict(zip(file["cases"].tolist(), file[key], strict=True)) for key in ("logits", "noise"))
QUICK = ("torchvision.resnet50 8", "timm.resnet18d 8", "timm.resnetv2_18d 8", "timm.mobilenetv2_100 8")


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in LOGITS]
)
def test_logits_are_the_references(case):
    reference, stride = case.split()
    name = BY_REFERENCE[reference]
    variables = import_state_dict(name, golden_files.weights(golden_files.load(reference)))
    model = create_model(name, output_stride=int(stride))
    logits = quick_apply(model, variables, golden_files.images(0, 2, 64), train=False)
    assert_within(logits, LOGITS[case], max(2e-5, 10 * NOISE[case]))


@pytest.mark.parametrize(
    "network",
    [
        partial(ResNet, (2, 1, 1, 2), BasicBlock, shortcut="A"),
        partial(ResNet, (1, 1, 2, 1), STRIDE_FIRST, shortcut="C", shortcut_kernel=3),
        partial(PreResNet, (1, 2, 1, 2), width=16),
        partial(PreResNet, (1, 1, 1, 2), partial(BottleneckUnit, stride_first=True), width=16),
        partial(MobileNetV1, 0.25),
        partial(MobileNetV2, 0.35),
    ],
)
def test_the_positions_of_a_halved_map_keep_their_values(network):
    """Also where the image, of 75 pixels, does not divide by 32: maps of 10, 5 and 3."""
    images = np.random.default_rng(0).standard_normal((2, 75, 75, 3)).astype(np.float32)
    network = partial(network, num_classes=0, global_pool="")
    variables = quick_init(network(), images, train=False)
    halved = quick_apply(network(), variables, images, train=False)
    dilated = quick_apply(network(output_stride=8), variables, images, train=False)
    assert halved.shape[1:3] == (3, 3) and dilated.shape[1:3] == (10, 10)
    np.testing.assert_allclose(dilated[:, ::4, ::4], halved, rtol=1e-4, atol=1e-4 * np.abs(halved).max())


def test_strides_and_dilations_are_those_of_deeplab():
    """Chen 2017 (1706.05587), fig. 3: at output stride 16 block 4 has rate 2; at 8 blocks 3 and 4 have 2 and 4."""
    assert [*stage_strides((1, 2, 2, 2), 4, 32)] == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)]
    assert [*stage_strides((1, 2, 2, 2), 4, 16)] == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)]
    assert [*stage_strides((1, 2, 2, 2), 4, 8)] == [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)]
    assert [*stage_strides((1, 2, 2, 2), 1, 8)] == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)]  # the stem for CIFAR


def test_every_large_residual_network_and_mobilenet_takes_an_output_stride():
    taking = [name for name in list_models() if "output_stride" in type(create_model(name)).__dataclass_fields__]
    assert {"resnet50", "plain18", "senet154", "legacy_seresnet50", "resnetv2_50", "preresnet18"} <= set(taking)
    assert {"mobilenet_100", "mobilenetv2_100", "mobilenet_v3_small", "mnasnet1_0"} <= set(taking)
    taps = structure(create_model("resnet50", output_stride=16, scan=True), (96, 96, 3)).taps
    assert taps["stage3"][:2] == taps["stage4"][:2] == (6, 6)
    with pytest.raises(UserError, match="output_stride must be one of 8, 16, 32, not 4"):
        create_model("resnet50", output_stride=4)
