import gzip
import io
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from raw_sets import WNIDS, cifar_files, idx, photo, write_idx_set, write_imagenet, write_tar

from cnn_jax import UserError
from cnn_jax.data.raw_files import READERS, read_idx


def read(name, folder, tmp_path):
    """Examples by split, as lists, through the reader of a TFDS builder."""
    builder = tfds.builder(name, data_dir=tmp_path / "tfds")
    splits = READERS[builder.name](builder, folder)
    return builder, {split: list(examples) for split, examples in splits.items()}


def pixels(example):
    return np.asarray(Image.open(example["image"]))


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_give_their_images_and_labels(tmp_path, zipped):
    made = write_idx_set(tmp_path / "raw", zipped=zipped)
    _, splits = read("mnist", tmp_path / "raw", tmp_path)
    for split, (images, labels) in made.items():
        assert [key for key, _ in splits[split]] == list(range(len(images)))
        np.testing.assert_array_equal([pixels(example) for _, example in splits[split]], images)
        assert [example["label"] for _, example in splits[split]] == labels.tolist()


def test_idx_files_may_be_named_with_a_dot(tmp_path):
    write_idx_set(tmp_path / "raw", zipped=False)
    for file in (tmp_path / "raw").iterdir():
        file.rename(str(file).replace("-idx", ".idx"))
    assert len(read("fashion_mnist", tmp_path / "raw", tmp_path)[1]["train"]) == 30


def test_emnist_is_read_from_its_zip(tmp_path):
    made = write_idx_set(tmp_path / "raw", prefix="emnist-letters-", test="test")
    with zipfile.ZipFile(tmp_path / "raw" / "gzip.zip", "w") as archive:
        for file in (tmp_path / "raw").glob("*.gz"):
            archive.write(file, f"gzip/{file.name}")
            file.unlink()
    _, splits = read("emnist/letters", tmp_path / "raw", tmp_path)
    np.testing.assert_array_equal([pixels(example) for _, example in splits["test"]], made["test"][0])


def test_read_idx_agrees_with_numpy(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6), np.uint8)
    (tmp_path / "x").write_bytes(idx(values))
    np.testing.assert_array_equal(read_idx(tmp_path / "x"), values)


def remove(file):
    file.unlink()


def cut(file):
    file.write_bytes(file.read_bytes()[:-50])


def empty(file):
    file.write_bytes(b"")


def say_floats(file):
    file.write_bytes(gzip.compress(b"\x00\x00\x0d\x01" + bytes(40)))


def lose_data(file):
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-7]))


def flip_bits(file):
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 20] = bytes(20)
    file.write_bytes(raw)


def other_size(file):
    file.write_bytes(idx(np.zeros((30, 32, 32), np.uint8)))


def fewer(file):
    file.write_bytes(idx(read_idx(file)[:-1]))


def label_ten(file):
    file.write_bytes(idx(np.full(30, 10, np.uint8)))


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, remove, "has no train-images-idx3-ubyte.gz or train-images-idx3-ubyte"),
        (IMAGES, cut, "Compressed file ended before the end-of-stream marker"),
        (IMAGES, empty, "is no idx file: it starts with nothing, not 0000080.."),
        (IMAGES, say_floats, "is no idx file: it starts with 00000d01, not 0000080.."),
        (IMAGES, lose_data, "has 23513 bytes of data, not the 30x28x28 that it tells of"),
        (IMAGES, flip_bits, "cannot read"),
        (IMAGES, other_size, "holds (30, 32, 32), not images of 28x28"),
        (LABELS, fewer, "has 29 labels for the 30 images of train-images-idx3-ubyte.gz"),
        (LABELS, label_ten, "has labels up to 10, not 0 to 9"),
    ],
)
def test_a_damaged_idx_file_is_named_in_one_line(tmp_path, name, damage, message):
    write_idx_set(tmp_path / "raw")
    damage(tmp_path / "raw" / name)
    with pytest.raises(UserError) as error:
        read("mnist", tmp_path / "raw", tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(tmp_path / "raw") in str(error.value)


@pytest.mark.parametrize("packed", [True, False])
def test_cifar_10_gives_its_images_labels_and_names(tmp_path, packed):
    files, made = cifar_files()
    if packed:
        prefixed = {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}
        write_tar(tmp_path / "raw" / "cifar-10-binary.tar.gz", prefixed, "w:gz")
    else:
        (tmp_path / "raw" / "cifar-10-batches-bin").mkdir(parents=True)
        for name, content in files.items():
            (tmp_path / "raw" / "cifar-10-batches-bin" / name).write_bytes(content)
    builder, splits = read("cifar10", tmp_path / "raw", tmp_path)
    for split, (images, labels) in made.items():
        np.testing.assert_array_equal([pixels(example) for _, example in splits[split]], images)
        assert [example["label"] for _, example in splits[split]] == labels.tolist()
    assert splits["train"][7][1]["id"] == "train_00007" and splits["test"][0][1]["id"] == "test_00000"
    assert builder.info.features["label"].names == [f"batc {i}" for i in range(10)]


def test_cifar_100_gives_both_labels(tmp_path):
    files, made = cifar_files(100, 20)
    write_tar(tmp_path / "raw" / "cifar-100-binary.tar.gz", {f"a/{n}": c for n, c in files.items()}, "w:gz")
    builder, splits = read("cifar100", tmp_path / "raw", tmp_path)
    _, labels = made["train"]
    assert [example["label"] for _, example in splits["train"]] == labels.tolist()
    assert [example["coarse_label"] for _, example in splits["train"]] == (labels % 20).tolist()
    np.testing.assert_array_equal([pixels(example) for _, example in splits["test"]], made["test"][0])
    assert builder.info.features["coarse_label"].names[3] == "coar 3"


def without(files, name):
    return {other: content for other, content in files.items() if other != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: without(files, "data_batch_3.bin"), "cifar-10-binary.tar.gz has no data_batch_3.bin"),
        (lambda files: files | {"test_batch.bin": files["test_batch.bin"][:-9]}, "test_batch.bin in"),
        (lambda files: files | {"test_batch.bin": b""}, "has 0 bytes, no multiple of 3073; it is cut short"),
        (lambda files: files | {"batches.meta.txt": b"cat\ndog\n"}, "has 2 names, not 10"),
        (lambda files: files | {"test_batch.bin": b"\xff" * 3073}, "has labels up to 255, not 0 to 9"),
    ],
)
def test_a_damaged_cifar_is_told_in_one_line(tmp_path, change, message):
    write_tar(tmp_path / "raw" / "cifar-10-binary.tar.gz", change(cifar_files()[0]), "w:gz")
    with pytest.raises(UserError) as error:
        read("cifar10", tmp_path / "raw", tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_archive_that_is_cut_or_missing_is_told(tmp_path):
    path = write_tar(tmp_path / "raw" / "cifar-10-binary.tar.gz", cifar_files()[0], "w:gz")
    cut(path)
    with pytest.raises(UserError, match="cannot read .*cifar-10-binary.tar.gz"):
        read("cifar10", tmp_path / "raw", tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="raw has no cifar-10-binary.tar.gz"):
        read("cifar10", tmp_path / "raw", tmp_path)


def test_imagenet_tars_give_their_files_under_their_names(tmp_path):
    files = write_imagenet(tmp_path / "raw")
    builder = tfds.builder("imagenet2012", data_dir=tmp_path / "tfds")
    splits = READERS["imagenet2012"](builder, tmp_path / "raw")
    assert sorted(splits) == ["train", "validation"]
    labels = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    seen = {}
    for split, examples in splits.items():
        for key, example in examples:  # a stream: a file is read while it is there
            content = example["image"].read()
            seen[key] = content
            assert key == example["file_name"]
            expected = key[:9] if split == "train" else labels[int(key[-10:-5]) - 1]
            assert example["label"] == expected
    odd = ("n01739381_1309.JPEG", "n02105855_2933.JPEG")
    assert seen.keys() == files.keys() and len(seen) == 17
    assert all(seen[name] == files[name] for name in seen if name not in odd)
    for name in odd:
        image, original = (Image.open(io.BytesIO(content[name])) for content in (seen, files))
        assert (image.format, image.mode) == ("JPEG", "RGB")
        difference = np.asarray(image).astype(int) - np.asarray(original.convert("RGB"))
        assert np.abs(difference).max() <= 4  # one colour, at quality 100


def test_a_tar_cut_between_two_files_does_not_pass_for_a_whole_one(tmp_path):
    write_imagenet(tmp_path / "raw")
    path = tmp_path / "raw" / "ILSVRC2012_img_val.tar"
    path.write_bytes(path.read_bytes()[: 2 * (512 + 1024)])
    with pytest.raises(UserError, match="ILSVRC2012_img_val.tar is cut short: it has not the end of a tar"):
        read("imagenet2012", tmp_path / "raw", tmp_path)


def test_a_damaged_tar_is_told_when_it_is_reached(tmp_path):
    write_imagenet(tmp_path / "raw")
    path = tmp_path / "raw" / "ILSVRC2012_img_train.tar"
    raw = bytearray(path.read_bytes())
    raw[512 : 512 + 100] = b"\xff" * 100  # the first header of the first inner tar
    path.write_bytes(raw)
    with pytest.raises(UserError, match="cannot read .*ILSVRC2012_img_train.tar"):
        read("imagenet2012", tmp_path / "raw", tmp_path)


def test_other_files_are_not_taken_for_imagenet(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="has none of ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar"):
        read("imagenet2012", tmp_path / "raw", tmp_path)
    write_tar(tmp_path / "raw" / "ILSVRC2012_img_val.tar", {"cat.jpg": photo(1)})
    with pytest.raises(UserError, match="img_val.tar holds 'cat.jpg', not ILSVRC2012_val_00000001.JPEG"):
        read("imagenet2012", tmp_path / "raw", tmp_path)


def test_the_synsets_here_are_imagenets():
    assert set(WNIDS) <= set(tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split())
