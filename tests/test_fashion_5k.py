import numpy as np
import pytest

from cnn_jax.data import fashion_5k, open_dataset, open_run
from cnn_jax.errors import UserError


@pytest.mark.parametrize(("split", "count"), [("train", 400), ("test", 100)])
def test_there_are_as_many_garments_of_each_class(split, count):
    images, labels = fashion_5k.read_split(split)
    assert images.shape == (10 * count, 28, 28, 1) and images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(labels), [count] * 10)


def test_it_begins_as_the_published_files_do():
    # The first labels of train-labels-idx1-ubyte and t10k-labels-idx1-ubyte.
    assert fashion_5k.read_split("train")[1][:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert fashion_5k.read_split("test")[1][:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


def test_no_image_is_in_both_splits():
    train, test = ({image.tobytes() for image in fashion_5k.read_split(split)[0]} for split in ("train", "test"))
    assert not train & test


def test_it_opens_by_its_name():
    opened = open_dataset("fashion_5k", "test[:20%]")
    assert len(opened) == 200 and opened.classes[9] == "Ankle boot" and opened.shape == (28, 28, 1)


def test_classes_are_chosen_by_name_or_number_and_keep_their_labels():
    sets = open_run("fashion_5k", "train", "test", train_classes=("Bag", "0"), test_classes=("Sneaker",))
    assert sorted({label for _, label in sets["train"].read(range(800))}) == [0, 8] and len(sets["train"]) == 800
    assert {label for _, label in sets["test"].read(range(100))} == {7} and len(sets["test"]) == 100


@pytest.mark.parametrize(
    ("name", "split", "wanted", "message"),
    [
        ("fashion_5k", "test", ["Bags"], "unknown class of fashion_5k 'Bags'; there are: Ankle boot, Bag,"),
        ("fashion_5k", "test", ["10"], "unknown class of fashion_5k '10'"),
        ("mnist_5k", "train[:400]", ["9"], r"no image of mnist_5k train\[:400\] is of the classes 9"),
        ("composed_masks", "test", ["bag"], "composed_masks has no classes of whole images"),
    ],
)
def test_classes_that_cannot_be_chosen_are_told(name, split, wanted, message):
    with pytest.raises(UserError, match=message):
        open_dataset(name, split).of_classes(wanted)
