"""Images with sentences: the files of COCO and Flickr in miniature."""

import json

import numpy as np
import pytest
from PIL import Image

from cnn_jax import UserError, captioning, open_dataset
from cnn_jax.data import dataset as data

DOG, CAT = "a dog runs", "a black cat sleeps"


def described(name, split, *sentences, **more):
    told = [{"tokens": text.split(), "raw": f"{text.capitalize()}."} for text in sentences]
    return {"filename": name, "imgid": 0, "split": split, "sentences": told, **more}


def written(folder, *images):
    file = folder / "dataset.json"
    file.write_text(json.dumps({"images": images, "dataset": "flickr8k"}))
    return f"karpathy:{file}"


@pytest.fixture
def pets(tmp_path):
    """One image in each of the places, with the words "a" six times, "dog" five, "cat" four in training."""
    for name in ("one.png", "images/two.png", "val2014/three.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), "red").save(tmp_path / name)
    return written(
        tmp_path,
        described("one.png", "train", *[DOG] * 5),
        described("two.png", "restval", CAT, *["cat"] * 3),
        described("three.png", "test", "a dog sleeps", "dog", filepath="val2014"),
    )


def test_words_that_training_has_five_times_make_the_vocabulary(pets):
    """The six of "a", five of "dog" and of "runs"; the four of "cat" are too few."""
    train = open_dataset(pets, "train")
    assert train.classes == ("<pad>", "<start>", "<end>", "<unk>", "a", "dog", "runs")
    assert train.labelled == "captions" and train.label_shape == (5, 5) and train.shape == (None, None, 3)
    (_, first), (_, second) = train.read([0, 1])
    np.testing.assert_array_equal(first, [[4, 5, 6, 2, 0]] * 5)
    np.testing.assert_array_equal(second, [[4, 3, 3, 3, 2], *[[3, 2, 0, 0, 0]] * 3, [0] * 5])
    assert len(open_dataset(f"{pets}?least=4", "train").classes) == 8
    assert open_dataset(f"{pets}?least=1", "train").classes[4:] == ("a", "dog", "runs", "cat", "black", "sleeps")


def test_images_lie_beside_the_file(pets):
    """Flickr's in the folder or in images/, COCO's in filepath/."""
    for split, count in (("train", 2), ("test", 1)):
        opened = open_dataset(pets, split)
        assert len(opened) == count
        assert [opened.pixels(index).shape for index in range(count)] == [(6, 8, 3)] * count
    assert open_dataset(pets, "test").place(0).endswith("val2014/three.png")
    ((_, label),) = open_dataset(pets, "test").read([0])
    np.testing.assert_array_equal(label, [[4, 5, 3, 2, 0], [5, 2, 0, 0, 0], *[[0] * 5] * 3])


def test_a_set_is_a_split_like_any_other(pets):
    opened = open_dataset(pets, "train[:1]+test")
    assert len(opened) == 2 and opened.fingerprint != open_dataset(pets, "test+train[:1]").fingerprint
    assert opened.labels.shape == (2, 5, 5) and opened.labels.dtype == np.int32
    with pytest.raises(UserError, match="unknown split of karpathy:.* 'restval'; there are: test, train"):
        open_dataset(pets, "restval")


def test_the_words_that_every_vocabulary_has_are_the_decoders():
    assert (data.PAD, data.START, data.END, data.UNKNOWN) == (
        captioning.PAD,
        captioning.START,
        captioning.END,
        captioning.UNKNOWN,
    )


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"filename": "one.png", "split": "train"}, 'image 0 is not as in a Karpathy file, {"images": '),
        ({"filename": 3, "split": "train", "sentences": []}, "image 0 is not as in"),
        ({"filename": "one.png", "split": "train", "sentences": [{"tokens": "a dog"}]}, "image 0 is not as in"),
        ([], "image 0 is not as in"),
        (described("one.png", "train"), "one.png has no sentence"),
        (
            described("one.png", "train", "a dog"),
            r"no word is seen 5 times in training; \?least=1 behind its name takes any",
        ),
        (described("none.png", "train", *["a"] * 5), "none.png is neither of .*/none.png, .*/images/none.png"),
        (described("one.png", "test", "a"), "has no split train, whose words make the vocabulary, but test"),
    ],
)
def test_a_file_of_another_form_is_told_in_one_line(tmp_path, image, words):
    Image.new("RGB", (8, 6)).save(tmp_path / "one.png")
    with pytest.raises(UserError, match=words) as told:
        open_dataset(written(tmp_path, image), "train")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read .*: No such file"),
        ("{", "is no JSON"),
        ("[1]", "has no images"),
        ('{"images": []}', "has no im"),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line(tmp_path, text, words):
    file = tmp_path / "dataset.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=words):
        open_dataset(f"karpathy:{file}", "train")
    with pytest.raises(UserError, match=r"is not like karpathy:FILE.json or karpathy:FILE.json\?least=2"):
        open_dataset(f"karpathy:{file}?least=0", "train")
