import numpy as np
import pytest

from cnn_jax.data import composed, fashion_5k, mnist_5k, open_dataset
from cnn_jax.errors import BadData


def words(numbers: np.ndarray) -> str:
    return " ".join(composed.VOCABULARY[number] for number in numbers if number > composed.END)


@pytest.fixture(scope="module", params=["train", "test"])
def captions(request):
    return open_dataset("composed_captions", f"{request.param}[:200]")


def test_a_scene_is_a_function_of_its_number(captions):
    again = open_dataset("composed_captions", captions.split)
    for (image, label), (other, same) in zip(captions.read([3, 150]), again.read([3, 150]), strict=True):
        np.testing.assert_array_equal(image, other)
        np.testing.assert_array_equal(label, same)


def test_sentences_say_where_the_things_are(captions):
    """The brighter half of two: a thing left of the other fills the left half, whose ink the sentence names first."""
    for image, label in captions.read(range(40)):
        first, second = map(words, label)
        assert first.split()[1] in composed.GARMENTS.values() and first.split()[-1] in composed.DIGITS
        assert first.split()[-1] == second.split()[1] and second.split()[-1] == first.split()[1]
        beside = "to the" in first
        scene = image[:, :, 0] if beside else image[:, :, 0].T
        assert scene[:, :32].any() and scene[:, 32:].any()
        ahead = {"left": first, "above": first, "right": second, "below": second}
        start = next(text for word, text in ahead.items() if word in first.split())
        digit = start.split()[1] in composed.DIGITS
        split = captions.split.partition("[")[0]
        images = (mnist_5k if digit else fashion_5k).read_split(split)[0][..., 0]
        assert (images.sum((1, 2)) == scene[:, :32].sum()).any()


def test_what_meets_in_a_test_scene_never_met_in_training():
    train, test = composed.compositions("train"), composed.compositions("test")
    assert len(train) == 192 and len(test) == 48 and not {*train} & {*test}
    for part in (slice(0, 2), slice(1, 3), slice(0, 3, 2)):  # but any two parts of it did
        assert {each[part] for each in test} <= {each[part] for each in train}


def test_masks_cover_the_ink_of_each_thing():
    masks = open_dataset("composed_masks", "test[:50]")
    seen = set()
    for image, label in masks.read(range(50)):
        np.testing.assert_array_equal(label > 0, image[:, :, 0] >= composed.INK)
        seen |= {*np.unique(label).tolist()}
    assert seen == {*range(len(composed.MASKS))}


def test_labels_are_arrays_of_small_numbers():
    masks = open_dataset("composed_masks", "test[:50]")
    assert masks.labels.shape == (50, 64, 64) and masks.labels.dtype == np.uint8 and masks.label_shape == (64, 64)
    assert masks.fingerprint == open_dataset("composed_masks", "test[:50]").fingerprint
    assert masks.fingerprint != open_dataset("composed_masks", "test[50:100]").fingerprint


def test_a_value_that_is_no_class_is_told_with_its_place(monkeypatch):
    monkeypatch.setattr(composed, "MASKS", composed.MASKS[:3])
    with pytest.raises(BadData, match="scene 1 of composed_masks has label 13, not 0 to 2"):
        open_dataset("composed_masks", "train").read([1])
