import subprocess
import sys

import pytest

from cnn_jax import list_models, model_info
from cnn_jax.models.card import Accuracy


def test_accuracies_are_in_percent_with_their_source():
    for name in list_models():
        for accuracy in model_info(name).accuracies:
            assert accuracy.of and accuracy.source
            for figure in (accuracy.top1, accuracy.top5):
                assert figure is None or 1 < figure < 100, (name, accuracy)


def test_published_figures_belong_to_registered_networks():
    from cnn_jax.models.card import _published

    assert set(_published()) <= set(list_models())


@pytest.mark.parametrize(
    ("name", "tag", "top1", "top5"),
    [
        ("resnet50", "resnet50.tv_in1k", 76.13, 92.862),  # torchvision, IMAGENET1K_V1
        ("alexnet_owt", "alexnet_owt.tv_in1k", 56.522, 79.066),
        ("xception", "xception.tf_in1k", 79.05, 94.39),
    ],
)
def test_weight_tags_bear_their_published_accuracy(name, tag, top1, top5):
    info = model_info(name)
    assert tag in info.weights
    first = next(a for a in info.accuracies if a.of == tag)
    assert (first.top1, first.top5) == pytest.approx((top1, top5), abs=0.06)


@pytest.mark.parametrize(
    ("of", "compares"),
    [
        ("resnet50.tv2_in1k", True),
        ("legacy_senet154.in1k", True),
        ("single crop", True),
        ("bvlc_googlenet, centre crop", True),
        ("resnext101_32x8d.fb_wsl_ig1b_ft_in1k", False),
        ("single crop, 48,238 images not blacklisted", False),
        ("dense, scale jitter", False),
        ("ten crops", False),
        ("320 pixels", False),
        ("MNIST", False),
        ("CIFAR-10 with augmentation", False),
    ],
)
def test_figures_of_one_protocol_compare(of, compares):
    assert Accuracy(of, 70.0, None, "").comparable is compares


def test_references_name_a_library_and_a_network():
    for name in list_models():
        for reference in model_info(name).references:
            library, _, network = reference.partition(".")
            assert library in (
                "torchvision",
                "timm",
                "pretrainedmodels",
                "facenet_pytorch",
                "akamaster",
                "pytorchcv",
                "keras",
            )
            assert network


def test_every_card_can_preprocess_an_image():
    for info in map(model_info, list_models()):
        assert len(info.mean) == len(info.std) == info.input_size[2]
        assert info.interpolation in ("bilinear", "bicubic")
        assert 0.5 < info.crop <= 1
        assert info.summary and info.paper and info.section and 1989 <= info.year <= 2019


def test_a_card_costs_no_published_figures_until_asked():
    code = "import cnn_jax.models.card as c; c.ModelInfo; print(c._published.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "0\n"


def test_other_channels_are_normalised_by_the_average():
    info = model_info("resnet18")
    assert info.normalization(3) == (info.mean, info.std)
    mean, std = info.normalization(1)
    assert mean == pytest.approx((0.449,)) and std == pytest.approx((0.226,))
    assert model_info("lenet5_modern").normalization(3) == ((0.1307,) * 3, (0.3081,) * 3)
