import json
import os
import subprocess
from pathlib import Path

import pytest

from cnn_jax import UserError, list_models, model_info
from cnn_jax.models.card import HALF, IMAGENET_MEAN, IMAGENET_STD, _published, pretrained
from cnn_jax.weights import WEIGHT_CARDS, weight_card
from cnn_jax.weights.names import table_for

SCRIPT = Path(__file__).parent / "library_weights.py"


@pytest.mark.parametrize(
    ("tag", "size", "resize", "interpolation", "mean", "std", "tested"),
    [  # torchvision 0.29.1, the weights' transforms, and timm 1.0.31, the pretrained configurations
        ("resnet50.tv_in1k", 224, 256, "bilinear", IMAGENET_MEAN, IMAGENET_STD, (None, None)),
        ("resnet50.tv2_in1k", 224, 232, "bilinear", IMAGENET_MEAN, IMAGENET_STD, (None, None)),
        ("resnet50.a1_in1k", 224, 235, "bicubic", IMAGENET_MEAN, IMAGENET_STD, (288, 288)),
        ("resnet50.a1h_in1k", 176, 195, "bicubic", IMAGENET_MEAN, IMAGENET_STD, (224, 224)),
        ("resnet34.ra4_e3600_r224_in1k", 224, 248, "bicubic", HALF, HALF, (288, 288)),
        ("inception_v3.tv_in1k", 299, 342, "bilinear", HALF, HALF, (None, None)),  # ImageNet's, turned inside
        ("inception_v3.tf_in1k", 299, 341, "bicubic", HALF, HALF, (None, None)),
        ("inception_v3.gluon_in1k", 299, 341, "bicubic", IMAGENET_MEAN, IMAGENET_STD, (None, None)),
        ("googlenet_bn.tv_in1k", 224, 256, "bilinear", HALF, HALF, (None, None)),
        ("shufflenet_v2_x1_5.tv_in1k", 224, 232, "bilinear", IMAGENET_MEAN, IMAGENET_STD, (None, None)),
        ("nasnetalarge.tf_in1k", 331, 363, "bicubic", HALF, HALF, (None, None)),
        # Keras 3.15.1, preprocess_input: Caffe's mean is of blue, green, red there
        (
            "vgg16.keras_in1k",
            224,
            256,
            "bilinear",
            (123.68 / 255, 116.779 / 255, 103.939 / 255),
            (1 / 255,) * 3,
            (None,) * 2,
        ),
        ("densenet121.keras_in1k", 224, 256, "bilinear", IMAGENET_MEAN, IMAGENET_STD, (None, None)),
        ("xception_keras.keras_in1k", 299, 341, "bilinear", HALF, HALF, (None, None)),
        ("mobilenetv3_large_100.miil_in21k_ft_in1k", 224, 256, "bilinear", (0, 0, 0), (1, 1, 1), (None, None)),
    ],
)
def test_images_enter_as_the_weights_want_them(tag, size, resize, interpolation, mean, std, tested):
    card = weight_card(tag)
    assert card.input_size == (size, size, 3)
    assert (card.resize, card.interpolation, card.mean, card.std) == (resize, interpolation, mean, std)
    assert (card.test_size, card.test_resize) == tested


def test_weights_for_blue_green_red_have_their_mean_in_our_order():
    """Caffe's (104, 117, 128), of pixels to 255 (pretrainedmodels 0.7.4)."""
    card = weight_card("bn_inception.cadene_in1k")
    assert [round(255 * value, 9) for value in card.mean + card.std] == [128, 117, 104, 1, 1, 1]


@pytest.mark.parametrize(
    ("tag", "source", "sha256", "license"),
    [
        ("resnet50.tv_in1k", "hf://timm/resnet50.tv_in1k", "0676ba61", "bsd-3-clause"),
        ("squeezenet1_0.tv_in1k", "https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth", "b66bff10", None),
        ("legacy_senet154.in1k", None, "e9eb9fe6", "apache-2.0"),
        ("xception.tf_in1k", None, "43020ad28", "apache-2.0"),
        ("resnext101_32x8d.fb_wsl_ig1b_ft_in1k", None, "c38310e5", "cc-by-nc-4.0"),
        ("inception_resnet_v1.vggface2", None, None, "mit"),
    ],
)
def test_a_card_says_where_its_file_is(tag, source, sha256, license):
    card = weight_card(tag)
    assert card.sha256 == sha256
    assert source in (None, card.source) and license in (None, card.license)


def test_cards_are_of_networks_whose_layout_loads():
    for card in WEIGHT_CARDS.values():
        info = model_info(card.model)
        assert card.tag.startswith(f"{info.name}.")
        assert card.reference in info.references and table_for(card.reference)
        assert card.hub or card.url
        assert card.resize >= card.input_size[0] and len(card.mean) == len(card.std) == 3


def test_every_published_figure_of_weights_has_a_card():
    figures = {row["of"] for name, rows in _published().items() for row in rows if row["of"].startswith(f"{name}.")}
    assert figures <= set(WEIGHT_CARDS) and set(WEIGHT_CARDS) - figures == {
        *("resnet50.bamboo", "mobilenetv3_large_100.miil_in21k"),  # without ImageNet's classes
        *("inception_resnet_v1.vggface2", "inception_resnet_v1.casia_webface"),  # of faces
    }
    assert (weight_card("vgg16.tv_in1k").top1, weight_card("vgg16.tv_in1k").top5) == (71.592, 90.382)  # torchvision


def test_weights_are_listed_by_network_and_by_tag():
    assert list_models("resnet101", pretrained=True) == sorted(model_info("resnet101").weights)
    assert list_models("*.tv2_in1k", pretrained=True)[0] == "mobilenet_v3_large.tv2_in1k"
    assert list_models("mobilenet_v2", pretrained=True) == list_models("mobilenetv2_100", pretrained=True)
    assert len(list_models(pretrained=True)) == len(WEIGHT_CARDS)
    assert list_models("lenet*", pretrained=True) == []


def test_the_page_counts_them():
    assert f"# one of {len(WEIGHT_CARDS)}; num_classes=10" in (Path(__file__).parents[1] / "docs/python.md").read_text()


def test_an_alias_names_the_same_weights():
    assert weight_card("mobilenet_v2.tv2_in1k") is weight_card("mobilenetv2_100.tv2_in1k")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("resnet50.tv3_in1k", "unknown weights 'resnet50.tv3_in1k'; did you mean resnet50.tv_in1k, resnet50.tv2_in1k"),
        ("inception_v4", "say which weights of inception_v4: inception_v4.tf_in1k"),
        ("lenet5", "lenet5 has no published weights"),
        ("", "unknown weights ''; there are: "),
        ("hf://", "'' is no repository of the Hub; these are named hf://user/name"),
        ("hf://me/../you", "'me/../you' is no repository of the Hub"),
        ("weights/mine.pth", "no file or folder weights/mine.pth"),
        ("hugo", "unknown weights 'hugo'; there are: "),
    ],
)
def test_a_name_that_is_none_is_told_what_would_be_right(name, line):
    with pytest.raises(UserError) as error:
        weight_card(name)
    assert str(error.value).startswith(line)


@pytest.mark.slow
def test_the_table_is_what_the_libraries_say():
    """OTHER_PYTHON names a Python that has torchvision and timm; after an update of theirs, rows may differ."""
    if (python := os.environ.get("OTHER_PYTHON")) is None:
        pytest.skip("OTHER_PYTHON is not set")
    references = {name: model_info(name).references for name in list_models()}
    asked = subprocess.run([python, SCRIPT], input=json.dumps(references), capture_output=True, text=True, check=True)
    others = ("pretrainedmodels.", "facenet_pytorch.", "akamaster.", "keras.")
    ours = {
        name: [row for row in pretrained().get(name, ()) if not row["reference"].startswith(others)]
        for name in references
    }
    assert json.loads(asked.stdout) == ours
