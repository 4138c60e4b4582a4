from functools import partial

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tfds_sets import SIZES

from cnn_jax import UserError, open_dataset
from cnn_jax.data.arrays import ArraySource, of_sources
from cnn_jax.data.splits import Joined, parse, take

NAMES = ("train", "test", "validation")


def numbered(**sizes):
    """A data set whose images are their own numbers, 100 apart from split to split."""
    return of_sources(
        "numbers",
        tuple("0123456789"),
        {
            split: ArraySource(
                np.arange(100 * start, 100 * start + size, dtype=np.uint8).reshape(-1, 1, 1, 1),
                np.zeros(size, int),
                split,
            )
            for start, (split, size) in enumerate(sizes.items())
        },
    )


def pixels(dataset):
    return [int(image[0, 0, 0]) for image, _ in dataset.read(range(len(dataset)))]


SPECS = (
    *("train", "train[:90%]", "train[10:20]", "train[-10%:]", "train[:-5]", "train[33.3%:66.7%]", "train[5:5]"),
    *("train[:1]", "train[-7:-2]", "train[-50%:-25%]", "train+test", "train[:50%] + test[1:]", "all", "train[20:10]"),
    *("test+train", "train[:1%]", "train[:5%]", "train[:15%]", "train[0:30]", "train[-30:]", "train[1_0:2_0]"),
)


@pytest.mark.parametrize("spec", SPECS)
def test_slices_hold_what_tfds_says(tiny, spec):
    """TFDS's own reading of the same words, over a set of 30 and 20 images, is the oracle."""
    builder = tfds.builder("tiny_shapes", data_dir=tiny)
    expected = [
        (instruction.filename.rpartition("/")[2].split(".")[0], index)
        for instruction in builder.info.splits[spec].file_instructions
        for index in range(instruction.skip, instruction.skip + instruction.take)
    ]
    found = [
        (f"tiny_shapes-{part.split}", index)
        for part in parse(spec, SIZES, "tiny_shapes")
        for index in range(*part.bounds(SIZES[part.split]))
    ]
    assert [name.split("-")[:2] for name, _ in expected] == [name.split("-")[:2] for name, _ in found]
    assert [index for _, index in expected] == [index for _, index in found]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 99, 101, 1_281_167])
def test_percentages_are_rounded_as_tfds_rounds_them(length):
    info = tfds.core.splits.SplitInfo(name="train", shard_lengths=[length], num_bytes=0)
    for percent in (-100, -99.5, -50, -12.5, -1, 0, 0.5, 1, 12.5, 33, 50, 62.5, 87.5, 99.5, 100):
        theirs = tfds.core.ReadInstruction("train", from_=percent, unit="%").to_absolute({"train": info})[0]
        (part,) = parse(f"train[{percent}%:]", ["train"], "x")
        assert part.bounds(length)[0] == (theirs.from_ or 0), percent


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tain", "unknown split of numbers 'tain'; did you mean train?"),
        ("train[:10%]+valid", "unknown split of numbers 'valid'; did you mean validation?"),
        ("", "'' is no split; splits are like train, train[:90%]"),
        ("train[", "'train[' is no split"),
        ("train[:]", "'train[:]' is no split"),
        ("train[5]", "'train[5]' is no split"),
        ("train[:1.5]", "'train[:1.5]' is no split"),
        ("train[1:2:3]", "'train[1:2:3]' is no split"),
        ("train[%:10]", "'train[%:10]' is no split"),
        ("train test", "'train test' is no split"),
        ("all[:5]", "unknown split of numbers 'all'"),
        ("train[:31]", "31 is outside of split 'train', which has 30 images"),
        ("train[-31:]", "-31 is outside of split 'train'"),
        ("train[:110%]", "110% is outside of split 'train'"),
        ("train[5:5]", "split 'train[5:5]' of numbers is empty: train has 30 images"),
        ("validation", "split 'validation' of numbers is empty: validation has 0 images"),
    ],
)
def test_a_split_that_is_none_is_one_line(spec, message):
    with pytest.raises(UserError) as error:
        take(numbered(train=30, test=20, validation=0), spec)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_slices_of_several_splits_keep_their_order():
    dataset = take(numbered(train=30, test=20), "test[-2:]+train[:3]+test[:1]")
    assert pixels(dataset) == [118, 119, 0, 1, 2, 100]
    assert [dataset.place(i) for i in (1, 2, 5)] == ["image 19 of test", "image 0 of train", "image 0 of test"]
    assert pixels(dataset.select(np.array([5, 0]), "two")) == [100, 118]
    assert pixels(take(numbered(train=6), "train[3:]+train[:3]")) == [3, 4, 5, 0, 1, 2]


def test_a_whole_split_costs_no_list_of_numbers():
    assert take(numbered(train=30, test=20), "train").indices is None
    assert take(numbered(train=30, test=20), "train+test").indices is None
    assert take(numbered(train=30, test=20), "train[:29]").indices.tolist() == list(range(29))


def test_joined_sources_read_in_any_order():
    joined = Joined(tuple(numbered(a=3, b=2).splits[split]() for split in "ab"))
    assert len(joined) == 5
    assert [int(image[0, 0, 0]) for image, _ in joined.read([4, 0, 3, 3, 2])] == [101, 0, 100, 100, 2]


def test_only_the_named_splits_are_opened():
    collection = numbered(train=30, test=20)
    opened = []
    spied = {split: partial(lambda s, o: opened.append(s) or o(), split, o) for split, o in collection.splits.items()}
    take(type(collection)(collection.name, collection.classes, collection.shape, spied), "test+test[:1]")
    assert opened == ["test"]


def test_a_slice_of_a_tfds_set_reads_those_images(tiny):
    whole, part = (open_dataset("tiny_shapes", split, tiny) for split in ("train", "train[-10%:]"))
    np.testing.assert_array_equal(part.images, whole.images[27:])
    assert part.labels.tolist() == whole.labels[27:].tolist()
