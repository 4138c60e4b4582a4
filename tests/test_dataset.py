import pickle

import numpy as np
import pytest
from raw_sets import photo

from cnn_jax import UserError
from cnn_jax.data.arrays import ArraySource
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.decode import BadImage

IMAGES = np.random.default_rng(0).integers(0, 256, (2_500, 4, 5, 3), np.uint8)
LABELS = np.arange(2_500) % 3


def dataset(images=IMAGES, labels=LABELS, shape=(4, 5, 3), classes=("a", "b", "c")) -> Dataset:
    return Dataset("made", "train", classes, shape, ArraySource(images, labels, "memory"))


class Broken(ArraySource):
    """Records 5 and 1,700 cannot be read."""

    def read(self, indices):
        if {5, 1_700} & set(indices):
            raise BadImage("cannot be read (dust)")
        return super().read(indices)


BROKEN = Dataset("made", "train", ("a", "b", "c"), (4, 5, 3), Broken(IMAGES, LABELS, "memory"))


def test_all_images_are_read_once_and_kept():
    whole = dataset()
    np.testing.assert_array_equal(whole.images, IMAGES)
    assert whole.images is whole.images and whole.labels.dtype == np.int32
    assert whole.labels.tolist() == LABELS.tolist()


def test_a_selection_of_a_selection_keeps_its_order_and_places():
    part = dataset().select(np.arange(100, 200), "middle").select(np.array([5, 50, 5]), "three")
    assert (len(part), part.split) == (3, "three")
    np.testing.assert_array_equal(part.images, IMAGES[[105, 150, 105]])
    assert part.place(1) == "image 150 of memory"


def test_encoded_images_and_pixels_mix():
    images = np.empty(2, object)
    images[:] = [photo(3, (5, 4)), IMAGES[0]]
    assert dataset(images, LABELS[:2]).images.shape == (2, 4, 5, 3)


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_that_is_no_class_is_told_with_its_place(label):
    labels = LABELS.copy()
    labels[1_234] = label
    broken = dataset(labels=labels)
    line = f"image 1234 of memory has label {label}, not 0 to 2; is train a split without labels?"
    for ask in (lambda: broken.labels, lambda: broken.read([7, 1_234])):
        with pytest.raises(UserError) as error:
            ask()
        assert str(error.value) == line


def test_a_record_that_cannot_be_read_is_found_among_others():
    found = BROKEN.read_each(range(1_690, 1_710))
    assert [1_690 + i for i, one in enumerate(found) if isinstance(one, BadImage)] == [1_700]
    with pytest.raises(BadImage):
        BROKEN.read([1_699, 1_700])
    with pytest.raises(UserError) as error:
        BROKEN.images
    assert str(error.value) == "image 5 of memory cannot be read (dust)"


def test_images_of_many_sizes_are_not_one_array():
    images = np.empty(3, object)
    images[:] = [IMAGES[0], IMAGES[1], IMAGES[2][:3]]
    odd = dataset(images, LABELS[:3], (None, None, 3))
    assert not odd.fixed_size and dataset().fixed_size
    with pytest.raises(UserError, match="made has images of many sizes .4x5 and 3x5.*--engine host decodes them"):
        odd.images


def test_the_fingerprint_tells_data_apart():
    known = dataset().fingerprint
    assert known.startswith("2500 images, crc32 ") and known == dataset(IMAGES.copy()).fingerprint
    changed, labelled = IMAGES.copy(), LABELS.copy()
    changed[-1, 0, 0, 0] ^= 1
    labelled[0] = 1
    others = {
        dataset(changed).fingerprint,
        dataset(labels=labelled).fingerprint,
        dataset(IMAGES[:-1], LABELS[:-1]).fingerprint,
        dataset().select(np.arange(2_500)[::-1], "back").fingerprint,
        BROKEN.select(np.arange(2_500) // 2 * 0 + 5, "bad").fingerprint,
    }
    assert len(others | {known}) == 6


def test_a_data_set_can_be_sent_to_another_process():
    part = dataset().select(np.array([7, 9]), "two")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).images, IMAGES[[7, 9]])
