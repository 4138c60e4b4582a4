from importlib import resources

from cnn_jax.data.imagenet import CLASSES, NAMES


def test_classes_are_numbered_as_tfds_numbers_imagenets():
    labels = resources.files("tensorflow_datasets.datasets.imagenet2012").joinpath("labels.txt").read_text().split()
    assert list(NAMES) == labels


def test_every_class_has_a_name_of_its_own():
    assert len(CLASSES) == len(set(CLASSES)) == 1000
    known = {0: "tench", 134: "crane bird", 517: "crane", 281: "tabby", 639: "maillot tank suit", 999: "toilet tissue"}
    assert {number: CLASSES[number] for number in known} == known  # timm's lemmas of the same synsets
