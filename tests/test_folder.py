import errno
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from cnn_jax import UserError, open_dataset, storage
from cnn_jax.data.decode import BadImage
from cnn_jax.errors import LostData


def photo(path, colour, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def pets(tmp_path):
    """Two splits of three classes; names are chosen so that sorting matters."""
    for split in ("train", "val"):
        for number, pet in enumerate(("dog", "Cat", "ant")):
            for name in ("b.jpg", "a10.PNG", "a9.jpeg", "deeper/c.webp"):
                photo(tmp_path / split / pet / name, (80 * number, 0, 0), (8 + number, 6))
            (tmp_path / split / pet / "notes.txt").write_text("no image")
    return tmp_path


def test_classes_and_files_are_in_torchvisions_order(pets):
    """ImageFolder: sorted(classes); for each sorted(os.walk) and in it sorted(files)."""
    dataset = open_dataset(f"folder:{pets}", "train")
    assert dataset.classes == ("Cat", "ant", "dog")
    assert [label for _, label in dataset.read(range(12))] == [0] * 4 + [1] * 4 + [2] * 4
    names = [os.path.relpath(dataset.place(i), pets / "train") for i in range(4)]
    assert names == ["Cat/a10.PNG", "Cat/a9.jpeg", "Cat/b.jpg", "Cat/deeper/c.webp"]


def test_folders_in_a_class_are_walked_in_order(tmp_path):
    for name in ("m", "z", "k", "a", "q", "c", "y", "b"):
        photo(tmp_path / "cat" / name / "1.png", "red")
    dataset = open_dataset(f"folder:{tmp_path}", "train")
    assert [dataset.place(i)[-7] for i in range(8)] == sorted("mzkaqcyb")


def test_images_are_the_files_themselves(pets):
    dataset = open_dataset(f"folder:{pets}", "val[-1:]")
    assert dataset.shape == (None, None, 3) and not dataset.fixed_size
    ((image, label),) = dataset.read([0])
    assert image == (pets / "val" / "dog" / "deeper" / "c.webp").read_bytes() and label == 2


def test_a_folder_of_classes_is_the_split_train(pets):
    dataset = open_dataset(f"folder:{pets / 'train'}", "train")
    assert len(dataset) == 12
    with pytest.raises(UserError, match="unknown split of folder:.* 'test'; there are: train"):
        open_dataset(f"folder:{pets / 'train'}", "test")


def test_a_class_that_one_split_lacks_keeps_the_numbers_of_the_others(pets):
    for file in (pets / "val" / "ant").rglob("*.*"):
        file.unlink()
    (pets / "val" / "ant" / "deeper").rmdir()
    (pets / "val" / "ant").rmdir()
    assert [label for _, label in open_dataset(f"folder:{pets}", "val").read(range(8))] == [0] * 4 + [2] * 4


def test_many_sizes_are_not_kept_as_one_array(pets):
    with pytest.raises(UserError, match="images of many sizes .6x9 and 6x10., which are not kept"):
        open_dataset(f"folder:{pets}", "train").images


def test_a_file_that_goes_away_is_told_by_its_path(pets):
    dataset = open_dataset(f"folder:{pets}", "train[:4]")
    gone = pets / "train" / "Cat" / "b.jpg"
    gone.unlink()
    with pytest.raises(UserError) as error:
        dataset.labels
    assert str(error.value) == f"{gone} cannot be read (No such file or directory)"
    assert dataset.fingerprint.startswith("4 images")


def test_a_name_that_is_no_text_can_be_told(pets):
    os.rename(pets / "train" / "Cat", os.fsencode(pets / "train") + b"/C\xfft")
    dataset = open_dataset(f"folder:{pets}", "train")
    assert dataset.classes == ("Cat", "C�t", "ant", "dog") and f"{pets}/train/C�t/" in dataset.place(0)
    assert dataset.read([0])[0][1] == 1


def test_a_data_set_can_be_sent_to_another_process(pets):
    dataset = pickle.loads(pickle.dumps(open_dataset(f"folder:{pets}", "train[2:5]")))
    assert [label for _, label in dataset.read([0, 1, 2])] == [0, 0, 1]


def nothing_there(path):
    return path / "nowhere", "nowhere is not a directory"


def no_classes(path):
    return path, "has no class folders; images lie in DIR/CLASS/ or DIR/train/CLASS/"


def loose_images(path):
    photo(path / "a.jpg", "red")
    return path, "has no class folders"


def an_empty_class(path):
    photo(path / "train" / "cat" / "a.jpg", "red")
    (path / "train" / ".ipynb_checkpoints").mkdir()
    return path, "train/.ipynb_checkpoints has no images (.jpg, .jpeg"


@pytest.mark.parametrize("make", [nothing_there, no_classes, loose_images, an_empty_class])
def test_a_folder_that_is_none_is_one_line(tmp_path, make):
    path, message = make(tmp_path)
    with pytest.raises(UserError) as error:
        open_dataset(f"folder:{path}", "train")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_split_without_class_folders_is_empty(pets):
    photo(pets / "test" / "1.jpg", "red")
    with pytest.raises(UserError, match="split 'test' of folder:.* is empty: test has 0 images"):
        open_dataset(f"folder:{pets}", "test")


def test_pixels_arrive(pets):
    np.testing.assert_array_equal(
        open_dataset(f"folder:{pets}", "train[1:2]").images[0, 0, 0] // 8, np.array([80, 0, 0]) // 8
    )


def test_a_link_back_is_not_followed_twice(pets, capsys):
    """Through the class and through the split above, which would bring in other classes, too."""
    (pets / "train" / "dog" / "again").symlink_to(pets / "train" / "dog")
    (pets / "train" / "dog" / "deeper" / "all").symlink_to(pets / "train")
    (pets / "elsewhere").mkdir()
    photo(pets / "elsewhere" / "d.png", "red")
    (pets / "train" / "dog" / "more").symlink_to(pets / "elsewhere")
    dataset = open_dataset(f"folder:{pets}", "train")
    assert len(dataset) == 13 and dataset.place(12).endswith("dog/more/d.png")
    err = capsys.readouterr().err
    assert err.count("leads to a folder that is taken already; left out\n") == 2 == err.count("\n")


def test_what_is_no_regular_file_is_a_bad_image(pets):
    os.mkfifo(pets / "train" / "ant" / "pipe.jpg")  # opening it would wait for a writer
    (pets / "train" / "ant" / "zero.jpg").symlink_to("/dev/zero")
    dataset = open_dataset(f"folder:{pets}", "train")
    for name in ("pipe.jpg", "zero.jpg"):
        (number,) = (i for i in range(len(dataset)) if dataset.place(i).endswith(name))
        with pytest.raises(BadImage, match="is no regular file"):
            dataset.read([number])


def test_a_file_too_large_for_any_image_is_not_read(pets):
    with (pets / "train" / "ant" / "large.jpg").open("wb") as file:
        file.truncate(2**31)  # nothing is written for that
    dataset = open_dataset(f"folder:{pets}", "train")
    (number,) = (i for i in range(len(dataset)) if dataset.place(i).endswith("large.jpg"))
    with pytest.raises(BadImage, match="has 2,147,483,648 bytes, more than 1,073,741,824"):
        dataset.read([number])


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (errno.ESTALE, LostData, "b.jpg cannot be read: Stale file handle, 7 times"),
        (errno.EIO, LostData, "b.jpg cannot be read: Input/output error, 7 times"),
        (errno.EMFILE, UserError, "b.jpg cannot be read: Too many open files"),
        (errno.EACCES, BadImage, "cannot be read (Permission denied)"),
    ],
)
def test_storage_that_fails_is_no_bad_image(pets, monkeypatch, number, kind, told):
    """Which --bad-images skip would train on without."""
    opened = os.open

    def failing(path, *args, **options):
        if str(path).endswith("b.jpg"):
            raise OSError(number, os.strerror(number), path)
        return opened(path, *args, **options)

    dataset = open_dataset(f"folder:{pets}", "train")
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(UserError) as error:
        dataset.read([2])
    assert type(error.value) is kind and str(error.value).endswith(told)


def test_storage_that_fails_for_a_while_is_asked_again(pets, monkeypatch):
    failures, opened = iter([errno.ESTALE, errno.ETIMEDOUT]), os.open

    def failing(path, *args, **options):
        number = next(failures, None) if str(path).endswith("b.jpg") else None
        if number is not None:
            raise OSError(number, os.strerror(number), path)
        return opened(path, *args, **options)

    dataset, waited = open_dataset(f"folder:{pets}", "train"), []
    monkeypatch.setattr(storage.time, "sleep", waited.append)
    monkeypatch.setattr(os, "open", failing)
    assert dataset.read([2])[0][0] == (pets / "train" / "Cat" / "b.jpg").read_bytes()
    assert waited == [0.5, 1]


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_not_the_current_folder(path):
    with pytest.raises(UserError, match="folder: names no directory; images lie in folder:DIR/CLASS/"):
        open_dataset(f"folder:{path}", "train")


def test_two_classes_that_are_one_folder_are_told(pets):
    (pets / "train" / "bird").symlink_to(pets / "train" / "dog")
    with pytest.raises(UserError, match="class folders .*/train/bird and dog are one folder"):
        open_dataset(f"folder:{pets}", "train")
