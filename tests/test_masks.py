import numpy as np
import pytest
from PIL import Image

from cnn_jax import UserError, open_dataset
from cnn_jax.data.decode import BadImage
from cnn_jax.data.masks import resized
from cnn_jax.errors import BadData

RNG = np.random.default_rng(0)
MASK = np.array([[0, 1, 2, 2], [0, 255, 1, 2]], np.uint8)


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if mode == "P":
        picture.putpalette([(37 * i) % 256 for i in range(768)])
    picture.save(path)


@pytest.fixture
def streets(tmp_path):
    """Two splits of images of many sizes, with grey and palette masks."""
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            name = f"town{number % 2}/{number}"
            pixels = RNG.integers(0, 256, (2 * (number + 1), 4 * (number + 1), 3), np.uint8)
            save(tmp_path / "images" / split / f"{name}.{('png', 'jpg')[number % 2]}", pixels)
            mask = MASK.repeat(number + 1, 0).repeat(number + 1, 1)
            save(tmp_path / "masks" / split / f"{name}.png", mask, ("L", "P")[number % 2])
    (tmp_path / "classes.txt").write_text("road\nhouse\nsky\n")
    return tmp_path


def test_an_image_has_the_mask_of_its_name(streets):
    dataset = open_dataset(f"masks:{streets}", "train")
    assert dataset.classes == ("road", "house", "sky") and len(dataset) == 3
    assert dataset.shape == (None, None, 3) and dataset.label_shape == (None, None) and not dataset.fixed_size
    assert [dataset.place(i)[len(str(streets)) :] for i in range(3)] == [
        "/images/train/town0/0.png",
        "/images/train/town0/2.png",
        "/images/train/town1/1.jpg",
    ]
    records = dataset.read(range(3))
    assert records[2][0] == (streets / "images/train/town1/1.jpg").read_bytes()
    for (_, mask), times in zip(records, (1, 3, 2), strict=True):  # a palette's mask by its numbers, not its colours
        np.testing.assert_array_equal(mask, MASK.repeat(times, 0).repeat(times, 1))


def test_without_names_the_classes_are_those_of_all_masks(streets):
    (streets / "classes.txt").unlink()
    save(streets / "masks/val/town0/0.png", np.array([[7, 255, 0, 0]] * 2, np.uint8))
    assert open_dataset(f"masks:{streets}", "train").classes == tuple("01234567")


def test_images_and_masks_are_brought_to_one_size(streets):
    """Halved and doubled, where the nearest pixel of a mask is known; Pillow says what the image is."""
    dataset = resized(open_dataset(f"masks:{streets}", "train[1:]"), 4)
    assert dataset.fixed_size and dataset.shape == (4, 4, 3) and dataset.label_shape == (4, 4) and len(dataset) == 2
    (image, mask), (second, other) = dataset.read([0, 1])
    np.testing.assert_array_equal(other, MASK.repeat(2, 0))
    np.testing.assert_array_equal(mask[[0, 3]], MASK)
    with Image.open(streets / "images/train/town0/2.png") as picture:
        np.testing.assert_array_equal(image, np.asarray(picture.resize((4, 4), Image.Resampling.BILINEAR)))
    assert second.shape == (4, 4, 3) and other.dtype == np.uint8
    assert dataset.images.shape == (2, 4, 4, 3) and dataset.labels.shape == (2, 4, 4)
    assert dataset.place(1).endswith("1.jpg")


def test_sets_that_lie_in_arrays_are_resized_too():
    dataset = resized(open_dataset("composed_masks", "test[:2]"), 32)
    ((image, mask),) = dataset.read([1])
    ((whole, classes),) = open_dataset("composed_masks", "test[:2]").read([1])
    assert image.shape == (32, 32, 1) and image.dtype == np.uint8
    np.testing.assert_array_equal(mask, classes[1::2, 1::2])
    assert abs(image.mean() - whole.mean()) < 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.zeros((2, 4, 3), np.uint8), "is of mode RGB; a pixel's class is its value in a grey or palette image"),
        (np.zeros((2, 4), np.uint16), "is of mode I;16"),
        (None, "is no readable image"),
    ],
)
def test_a_file_that_is_no_mask_is_a_bad_image(streets, values, told):
    path = streets / "masks/train/town0/0.png"
    if values is None:
        path.write_bytes(path.read_bytes()[:45])
    else:
        save(path, values)
    dataset = open_dataset(f"masks:{streets}", "train")
    with pytest.raises(BadImage, match=f"has a mask, {path}, that {told}"):
        dataset.read([0])
    bad, good, _ = dataset.read_each(range(3))
    assert isinstance(bad, BadImage) and isinstance(good, tuple)
    (streets / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"0.png: an image that has a mask, .*; classes.txt would save reading it"):
        open_dataset(f"masks:{streets}", "train")


def test_a_mask_of_another_size_or_class_is_told_with_its_place(streets):
    save(streets / "masks/train/town0/0.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(BadImage, match="is 2x4, and its mask 3x4"):
        resized(open_dataset(f"masks:{streets}", "train"), 4).read([0])
    save(streets / "masks/train/town0/0.png", np.full((2, 4), 3, np.uint8))
    with pytest.raises(BadData, match=r"town0/0.png has label 3, not 0 to 2"):
        open_dataset(f"masks:{streets}", "train").read([0])


def test_a_folder_that_is_laid_out_otherwise_is_told(streets, tmp_path_factory):
    where = r"images lie in DIR/images/SPLIT/, their masks under the same names in DIR/masks/SPLIT/NAME.png"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(UserError, match=f"has no folders images and masks; {where}"):
        open_dataset(f"masks:{elsewhere}", "train")
    with pytest.raises(UserError, match="masks: has no folders"):
        open_dataset("masks:", "train")
    for name in ("images", "masks"):
        (elsewhere / name).mkdir()
    with pytest.raises(UserError, match=f"has no splits; {where}"):
        open_dataset(f"masks:{elsewhere}", "train")
    with pytest.raises(UserError, match="unknown split of masks:.* 'test'; there are: train, val"):
        open_dataset(f"masks:{streets}", "test")
    (streets / "masks/val/town1/1.png").unlink()
    with pytest.raises(UserError, match=r"images/val/town1/1.jpg has no mask .*/masks/val/town1/1.png"):
        open_dataset(f"masks:{streets}", "val")
    (streets / "images/train/town0/0.png").unlink()
    with pytest.raises(UserError, match=r"masks/train/town0/0.png is a mask without an image in .*/images/train"):
        open_dataset(f"masks:{streets}", "train")


@pytest.mark.parametrize("text", ["", "road\nroad\n", "road\n\nsky\n", "\n".join(map(str, range(256)))])
def test_names_that_name_no_classes_are_told(streets, text):
    (streets / "classes.txt").write_text(text)
    with pytest.raises(UserError, match="classes.txt must name 1 to 255 different classes, one on each line"):
        open_dataset(f"masks:{streets}", "train")
