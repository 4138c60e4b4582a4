"""What networks see of real photographs, against what torchvision and timm make of them (tests/photos)."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from odd_images import JPEG, PIXELS, PNG
from PIL import Image

from cnn_jax import UserError, model_info, preprocess
from cnn_jax.preprocessing import Preprocess
from cnn_jax.weights import WEIGHT_CARDS, weight_card

PHOTOS = Path(__file__).parent / "photos"
REFERENCE = json.loads((PHOTOS / "reference.json").read_text())
WAYS = [tag for tag in REFERENCE if tag != "versions"]
OFTEN = 6  # of them in every test run
# torchvision's Inception v3 brings ImageNet's normalisation to [-1, 1] inside the network (transform_input); our card
# has [-1, 1] at once, as timm's.
NORMALIZED_AGAIN = "inception_v3.tv_in1k"
TINY = preprocess("resnet50", image_size=8, resize=10)


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def seen_by(way) -> Preprocess:
    tag, _, tested = way.partition(" as ")
    return preprocess(tag, as_tested=bool(tested))


@pytest.mark.parametrize("way", [*WAYS[:OFTEN], *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[OFTEN:])])
def test_photographs_are_seen_as_the_library_of_the_weights_shows_them(way):
    """To the last bit: the grey levels, and what the network takes."""
    seen, wanted = seen_by(way), dict(REFERENCE[way])
    mean, std = wanted.pop("mean"), wanted.pop("std")
    if way != NORMALIZED_AGAIN:
        assert (seen.mean, seen.std) == (tuple(mean), tuple(std))
    assert wanted.keys() == {path.name for path in PHOTOS.iterdir()} - {"README.md", "reference.json", "reference.py"}
    for name, row in wanted.items():
        pixels = seen.pixels(PHOTOS / name)
        places = np.linspace(0, len(pixels) - 1, 5).astype(int)[1:-1]
        np.testing.assert_array_equal(pixels[np.ix_(places, places)].ravel(), row["some"], err_msg=name)
        assert sha256(pixels) == row["pixels"], name
        if way != NORMALIZED_AGAIN:
            assert sha256(seen(PHOTOS / name)[0]) == row["input"], name


def test_no_published_weights_see_images_in_a_way_that_is_not_compared():
    """But for those that are in neither library: CIFAR's of 32 pixels, FaceNet's, and Keras's, which shows none how."""
    cards = {tag: card for tag, card in WEIGHT_CARDS.items() if not card.reference.startswith("keras.")}

    def sizes(seen):
        return seen.size[0], seen.resize, seen.interpolation

    compared = {sizes(seen_by(way)) for way in WAYS}
    published = {sizes(preprocess(tag, as_tested=tested)) for tag in cards for tested in (False, True)}
    assert published - compared == {(32, 32, "bilinear"), (160, 160, "bilinear")}
    known = {(tuple(REFERENCE[way]["mean"]), tuple(REFERENCE[way]["std"])) for way in WAYS}
    others = {tag.partition(".")[0] for tag, card in cards.items() if (card.mean, card.std) not in known}
    assert {network for network in others if "cifar" not in network} == {"bn_inception", "inception_resnet_v1"}


def test_an_image_may_come_in_any_form():
    """As a path, bytes, a Pillow image, pixels; alone and among others."""
    path = PHOTOS / "portrait.jpg"
    with Image.open(path) as opened:
        forms = [path, str(path), path.read_bytes(), opened, np.asarray(opened)]
        found = TINY(forms)
    assert found.shape == (5, 8, 8, 3) and found.dtype == np.float32
    for one in found:
        np.testing.assert_array_equal(one, found[0])
    normalized = (TINY.pixels(PNG) / np.float32(255) - np.float32(TINY.mean)) / np.float32(TINY.std)
    for alone in (PNG, PIXELS, Image.open(io.BytesIO(PNG)), PIXELS[None]):
        found = TINY(alone)
        assert found.shape == (1, 8, 8, 3)
        np.testing.assert_array_equal(found[0], normalized)


def test_pixels_of_other_channels_are_converted():
    grey = PIXELS[:, :, :1]
    np.testing.assert_array_equal(TINY.pixels(grey[:, :, 0]), TINY.pixels(np.repeat(grey, 3, 2)))
    alpha = np.dstack([PIXELS, np.zeros((*PIXELS.shape[:2], 1), np.uint8)])
    np.testing.assert_array_equal(TINY.pixels(alpha), TINY.pixels(PIXELS))
    one = preprocess("resnet50", channels=1, image_size=8, resize=10)
    assert one(PNG).shape == (1, 8, 8, 1)
    assert one.mean == pytest.approx((np.mean(model_info("resnet50").mean),))


def test_less_than_the_crop_is_framed_in_black():
    """torchvision's CenterCrop: the odd row of a frame is below, the odd column to the right."""
    framed = replace(TINY, size=(13, 12), resize=6).pixels(PIXELS[:, :40])
    assert framed.shape == (13, 12, 3)
    inside = np.asarray(Image.fromarray(PIXELS[:, :40]).resize((6, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(framed[3:9, 3:9], inside)
    assert framed.sum() == inside.sum()


def test_tags_of_one_network_differ_and_what_is_given_takes_their_place():
    first, second, third = (preprocess(f"resnet50.{tag}") for tag in ("tv_in1k", "tv2_in1k", "a1_in1k"))
    assert [one.resize for one in (first, second, third)] == [256, 232, 235]
    assert [one.interpolation for one in (first, second, third)] == ["bilinear", "bilinear", "bicubic"]
    assert preprocess("resnet50.a1_in1k", as_tested=True).size == (288, 288)
    assert preprocess(weight_card("resnet50.tv2_in1k")) == second
    assert preprocess(model_info("resnet50")) == preprocess("resnet50") == first
    larger = preprocess("resnet50.tv2_in1k", image_size=448)
    assert (larger.size, larger.resize) == ((448, 448), 464)
    assert preprocess("resnet50.tv2_in1k", crop=0.875).resize == 256
    assert preprocess("resnet50.tv2_in1k", resize=300, interpolation="bicubic") == replace(
        second, resize=300, interpolation="bicubic"
    )


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: preprocess("resnet5"), "unknown model 'resnet5'; did you mean resnet50"),
        (lambda: preprocess("resnet50.tv_in2k"), "did you mean resnet50.tv_in1k"),
        (lambda: preprocess("resnet50", resize=256, crop=0.9), "resize and crop say the same"),
        (lambda: preprocess("resnet50", crop=87.5), "crop is the share of the shorter side .* not 87.5"),
        (lambda: preprocess("resnet50", image_size=0), "image_size must be a positive whole number, not 0"),
        (
            lambda: preprocess("resnet50", interpolation="bicubik"),
            "unknown interpolation 'bicubik'; did you mean bicubic",
        ),
        (lambda: TINY(PIXELS / 255), r"uint8 .* not float64"),
        (lambda: TINY(PIXELS.transpose(2, 0, 1)), r"not \(3, 40, 60\); channels come last"),
        (lambda: TINY(PIXELS[:0]), r"not \(0, 60, 3\)"),
        (lambda: TINY("nowhere.jpg"), r"nowhere.jpg cannot be read \(No such file or directory\)"),
        (lambda: TINY([PNG, JPEG[:100]]), "image 1 is a damaged JPEG"),
    ],
)
def test_mistakes_are_one_line(call, line):
    with pytest.raises(UserError, match=line) as error:
        call()
    assert "\n" not in str(error.value)
