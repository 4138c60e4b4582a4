"""Small data sets in the files that their authors publish: idx, CIFAR's archives, ImageNet's tars."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"train": 30, "test": 10}  # images of an idx set
WNIDS = ("n01440764", "n01739381", "n02105855")  # tench, vine snake, Shetland sheepdog


def idx(values: np.ndarray) -> bytes:
    """An idx file of bytes: magic number, sizes, data (http://yann.lecun.com/exdb/mnist/)."""
    return b"\x00\x00\x08" + bytes([values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def write_idx_set(folder: Path, sizes=SIZES, prefix="", test="t10k", zipped=True) -> dict[str, tuple]:
    """Random 28x28 images in four files; returns images and labels by split."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, made = np.random.default_rng(0), {}
    for split, part in (("train", "train"), ("test", test)):
        images = rng.integers(0, 256, (sizes[split], 28, 28), np.uint8)
        labels = (np.arange(sizes[split]) % 10).astype(np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{prefix}{part}-{kind}-ubyte"
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values), 1))
            else:
                (folder / name).write_bytes(idx(values))
        made[split] = (images, labels)
    return made


def cifar_files(fine: int = 10, coarse: int = 0, rows: int = 6) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """The members of CIFAR's binary archive, and the images (N, 32, 32, 3) and labels of each split."""
    rng, files = np.random.default_rng(1), {}
    if coarse:
        parts = {"train": ["train.bin"], "test": ["test.bin"]}
        names = {"fine_label_names.txt": fine, "coarse_label_names.txt": coarse}
    else:
        parts = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
        names = {"batches.meta.txt": fine}
    made = {}
    for split, members in parts.items():
        images = rng.integers(0, 256, (rows * len(members), 32, 32, 3), np.uint8)
        labels = rng.integers(0, fine, len(images), np.uint8)
        columns = [labels[:, None], images.transpose(0, 3, 1, 2).reshape(len(images), -1)]  # planes of red, green, blue
        table = np.concatenate([(labels % coarse)[:, None], *columns] if coarse else columns, 1)
        for n, member in enumerate(members):
            files[member] = table[n * rows : (n + 1) * rows].tobytes()
        made[split] = (images, labels)
    for name, count in names.items():
        files[name] = "".join(f"{name[:4]} {i}\n" for i in range(count)).encode() + b"\n"
    return files, made


def write_tar(path: Path, files: dict[str, bytes], mode="w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def photo(number: int, size=(40, 30), form="JPEG", mode="RGB") -> bytes:
    encoded = io.BytesIO()
    colours = {"RGB": (5 * number, 80, 200), "CMYK": (200, 5 * number, 30, 10)}
    Image.new(mode, size, colours[mode]).save(encoded, form)
    return encoded.getvalue()


def write_imagenet(folder: Path, each: int = 4) -> dict[str, bytes]:
    """Train and validation tars; one train image is in CMYK and one a PNG, where the real ones are. Returns all."""
    photos = {wnid: {f"{wnid}_{n}.JPEG": photo(10 * k + n) for n in range(each)} for k, wnid in enumerate(WNIDS)}
    photos["n01739381"]["n01739381_1309.JPEG"] = photo(1, mode="CMYK")
    photos["n02105855"]["n02105855_2933.JPEG"] = photo(2, form="PNG")
    inner = {}
    for wnid, files in photos.items():
        inner[f"{wnid}.tar"] = write_tar(folder / "one.tar", files).read_bytes()
    (folder / "one.tar").unlink()
    write_tar(folder / "ILSVRC2012_img_train.tar", inner)
    # Not in the order of their numbers, as in the real one.
    validation = {f"ILSVRC2012_val_{n:08}.JPEG": photo(n) for n in (3, 1, 2)}
    write_tar(folder / "ILSVRC2012_img_val.tar", validation)
    return {name: content for files in (*photos.values(), validation) for name, content in files.items()}
