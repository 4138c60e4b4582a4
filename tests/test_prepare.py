import fcntl
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from file_server import FileServer
from PIL import Image
from raw_sets import cifar_files, write_idx_set, write_imagenet, write_tar
from runs import SAFETY
from tensorflow_datasets.core import hashing
from tfds_sets import builder_code

from cnn_jax import UserError, open_dataset
from cnn_jax.atomic import alone
from cnn_jax.cli import main
from cnn_jax.data.prepare import NotWritable, prepare
from cnn_jax.data.raw_files import read_idx

PUBLISHED = Path(__file__).parent.parent.parent / "shared" / "data" / "fashion-mnist"
MANY = {"train": 600, "test": 100}


def command(*options) -> list[str]:
    return [sys.executable, "-m", "cnn_jax.cli", "prepare", *map(str, options)]


def run(*options, **how) -> subprocess.CompletedProcess:
    return subprocess.run(command(*options), capture_output=True, text=True, timeout=SAFETY, **how)


@pytest.fixture
def run_here(capsys):
    """The command in this process."""

    def call(*options) -> subprocess.CompletedProcess:
        code = main(["prepare", *map(str, options)])
        return subprocess.CompletedProcess(options, code, *capsys.readouterr())

    return call


def told(done: subprocess.CompletedProcess) -> str:
    """The one line that a command ends with after a mistake."""
    assert done.returncode == 2 and done.stderr.startswith("cnn-jax: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def leftovers(data_dir: Path) -> list[str]:
    return sorted(
        str(path.relative_to(data_dir)) for path in data_dir.rglob("*") if re.search("incomplete|lock", path.name)
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_idx_set(folder, MANY)
    return folder


def assert_whole(data_dir: Path, raw: Path, name="fashion_mnist"):
    """Every image and label of a prepared set is in its files, and in TFDS's order."""
    for split, part in (("train", "train"), ("test", "t10k")):
        images = read_idx(raw / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(raw / f"{part}-labels-idx1-ubyte.gz")
        # TFDS orders examples by a hash of their keys, salted by the split.
        keys = sorted(range(len(images)), key=hashing.Hasher(split).hash_key)
        dataset = open_dataset(name, split, data_dir)
        np.testing.assert_array_equal(dataset.images[..., 0], images[keys])
        np.testing.assert_array_equal(dataset.labels, labels[keys])


def test_the_command_makes_the_set_that_tfds_reads(raw, tmp_path):
    done = run("fashion_mnist", "--from-files", raw, "--data-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    place = tmp_path / "fashion_mnist" / "3.0.1"
    assert done.stdout.splitlines() == [
        f"preparing fashion_mnist in {place} (once)",
        f"fashion_mnist is prepared in {place}: 600 train, 100 test images",
    ]
    assert_whole(tmp_path, raw)
    ours, theirs = (
        open_dataset("fashion_mnist", "test", tmp_path),
        tfds.data_source("fashion_mnist", data_dir=tmp_path),
    )
    for index in (0, 50, 99):
        record = theirs["test"][index]
        np.testing.assert_array_equal(record["image"], ours.images[index])
        assert record["label"] == ours.labels[index]
    assert tfds.builder("fashion_mnist", data_dir=tmp_path).info.features["label"].names[9] == "Ankle boot"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fashion_mnist"]
    again = run("fashion_mnist", "--data-dir", tmp_path)  # nothing to do, so nothing to fetch
    assert (again.returncode, again.stdout.splitlines()) == (0, done.stdout.splitlines()[1:])


def test_neither_tensorflow_nor_jax_is_imported(raw, tmp_path):
    script = (
        "import sys; from cnn_jax.cli import main;"
        f"code = main(['prepare', 'mnist', '--from-files', {str(raw)!r}, '--data-dir', {str(tmp_path)!r}]);"
        "print(code, 'tensorflow' in sys.modules, 'jax' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "0 False False"
    assert_whole(tmp_path, raw, "mnist")


def test_cifar_becomes_a_tfds_set(tmp_path):
    files, made = cifar_files(100, 20)
    write_tar(tmp_path / "raw" / "cifar-100-binary.tar.gz", files, "w:gz")
    prepare("cifar100", tmp_path / "tfds", tmp_path / "raw")
    images, labels = made["test"]
    records = tfds.data_source("cifar100", split="test", data_dir=tmp_path / "tfds")
    for record in records:
        index = int(record["id"].decode().removeprefix("test_"))
        np.testing.assert_array_equal(record["image"], images[index])
        assert (record["label"], record["coarse_label"]) == (labels[index], labels[index] % 20)
    dataset = open_dataset("cifar100", "train", tmp_path / "tfds")
    assert (len(records), len(dataset), len(dataset.classes), dataset.classes[2]) == (6, 6, 100, "fine 2")


def test_imagenet_becomes_a_tfds_set(run_here, tmp_path):
    files = write_imagenet(tmp_path / "raw")
    done = run_here("imagenet2012", "--from-files", tmp_path / "raw", "--data-dir", tmp_path)
    assert done.returncode == 0 and "14 train, 3 validation images" in done.stdout, done.stderr
    dataset = open_dataset("imagenet2012", "train", tmp_path)
    stored = {bytes(image): label for image, label in dataset.read(range(14))}
    kept = [name for name in files if name[0] == "n" and name not in ("n01739381_1309.JPEG", "n02105855_2933.JPEG")]
    names = tfds.builder("imagenet2012", data_dir=tmp_path).info.features["label"].names
    assert all(names[stored[files[name]]] == name[:9] for name in kept) and len(kept) == 12
    assert {Image.open(io.BytesIO(image)).mode for image in stored} == {"RGB"}
    assert len(open_dataset("imagenet2012", "validation", tmp_path)) == 3


def test_a_set_with_configurations_is_found_by_its_name(tmp_path):
    write_idx_set(tmp_path / "raw", prefix="emnist-letters-", test="test")
    prepare("emnist/letters", tmp_path, tmp_path / "raw")
    assert len(open_dataset("emnist/letters", "train", tmp_path)) == 30
    assert (tmp_path / "emnist" / ".config" / "metadata.json").is_file()


# ----- kills

# What signalled.py takes: six hundred images of train are encoded before the hundred of test.
ENCODING = ("call:300", "PIL.Image:Image.save")
MOMENTS = {
    "before anything is written": ("os.mkdir", "/incomplete.fashion_mnist$"),
    "while images are encoded": ENCODING,
    "in the second split": ("call:650", "PIL.Image:Image.save"),
    "after both": ("open", "/incomplete.*features.json$"),
    "before the set is moved to its place": ("os.rename", "/fashion_mnist/3.0.1$"),
}


def signalled(signum, moment, *options) -> list[str]:
    here = str(Path(__file__).parent / "signalled.py")
    return [sys.executable, here, str(int(signum)), *moment, "-m", "cnn_jax.cli", "prepare", *map(str, options)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_preparation_leaves_nothing_that_passes_for_a_set(raw, tmp_path, run_here, moment):
    options = ("fashion_mnist", "--from-files", raw, "--data-dir", tmp_path)
    killed = subprocess.run(signalled(signal.SIGKILL, MOMENTS[moment], *options), capture_output=True, timeout=SAFETY)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match=r"fashion_mnist is not prepared in .*`cnn-jax prepare fashion_mnist`"):
        open_dataset("fashion_mnist", "train", tmp_path)
    assert leftovers(tmp_path)
    assert run_here(*options).returncode == 0
    assert_whole(tmp_path, raw)
    assert not leftovers(tmp_path)


def test_ctrl_c_leaves_nothing(raw, tmp_path):
    options = ("fashion_mnist", "--from-files", raw, "--data-dir", tmp_path)
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell start deaf to it
    done = subprocess.run(
        signalled(signal.SIGINT, ENCODING, *options),
        capture_output=True,
        text=True,
        timeout=SAFETY,
        preexec_fn=heard,
    )
    assert done.returncode == 130 and done.stderr.count("\n") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def wait_until_locked_out(pid, goes_on):
    """Until the kernel tells that a process waits for a lock of a file (Linux)."""
    end = time.monotonic() + SAFETY
    while not re.search(rf"-> FLOCK .* {pid} ", Path("/proc/locks").read_text()):
        assert goes_on() and time.monotonic() < end
        time.sleep(0.01)


def test_what_a_living_process_writes_is_left_alone(raw, tmp_path):
    """The second waits for the first, stopped in the middle, and takes what it has made."""
    options = ("fashion_mnist", "--from-files", raw, "--data-dir", tmp_path)
    pipe = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(signalled(signal.SIGSTOP, ENCODING, *options), **pipe) as first:
        assert os.WIFSTOPPED(os.waitpid(first.pid, os.WUNTRACED)[1])
        before = leftovers(tmp_path)
        with subprocess.Popen(command(*options), stderr=subprocess.PIPE, **pipe) as second:
            assert second.stderr.readline().startswith("waiting for the process that holds")
            wait_until_locked_out(second.pid, lambda: second.poll() is None)
            assert leftovers(tmp_path) == before
            first.send_signal(signal.SIGCONT)
            outputs = [process.communicate(timeout=SAFETY)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert "preparing" in outputs[0] and "preparing" not in outputs[1]
    assert_whole(tmp_path, raw)
    assert not leftovers(tmp_path)


def test_a_lock_that_was_waited_for_keeps_others_out(tmp_path):
    """The first removes the file when it is done; the second must not go on with one that nobody sees."""
    path, inside, done = tmp_path / "lock", threading.Event(), threading.Event()

    def second():
        with alone(path):
            inside.set()
            done.wait(SAFETY)

    thread = threading.Thread(target=second)
    with alone(path):
        thread.start()
        wait_until_locked_out(os.getpid(), thread.is_alive)
        assert not inside.is_set()
    assert inside.wait(SAFETY)
    with path.open("w") as third, pytest.raises(BlockingIOError):
        fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
    done.set()
    thread.join()
    assert not path.exists()


def test_another_set_that_a_killed_process_had_finished_is_not_taken(raw, tmp_path):
    write_idx_set(tmp_path / "other")
    prepare("fashion_mnist", tmp_path / "killed", tmp_path / "other")
    (tmp_path / "tfds").mkdir()
    (tmp_path / "killed").rename(tmp_path / "tfds" / "incomplete.fashion_mnist")
    prepare("fashion_mnist", tmp_path / "tfds", raw)
    assert_whole(tmp_path / "tfds", raw)


def test_many_processes_at_once_make_one_set(tmp_path):
    script = f"import cnn_jax; print(len(cnn_jax.open_dataset('mnist_5k', 'train', {str(tmp_path)!r})))"
    all_ = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=SAFETY)[0].split() for process in all_]
    assert [output[-1] for output in outputs] == ["4000"] * 4
    assert sum(output[0] == "preparing" for output in outputs) == 1
    assert not leftovers(tmp_path)


# ----- mistakes


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("size", ["200k", "600k"])
def test_a_full_disk_is_told_in_one_line_and_left_clean(raw, tmp_path, run_here, size):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this place lets nobody mount")
    try:
        done = run_here("fashion_mnist", "--from-files", raw, "--data-dir", disk)
        assert "No space left on device; --data-dir DIR names another place" in told(done)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_place_that_cannot_be_written_is_told(raw, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable, match="cannot prepare mnist in .*Not a directory|File exists"):
        prepare("mnist", tmp_path / "file", raw)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("fashion_mnis",), "unknown data set 'fashion_mnis'; did you mean fashion_mnist?"),
        (("mnist", "--from-files", "nowhere"), "--from-files nowhere is not a directory"),
        (("mnist", "--from-files", "."), ". has no train-images-idx3-ubyte.gz or train-images-idx3-ubyte"),
        (("imagenet2012",), "imagenet2012 needs --from-files DIR. DIR should contain two files: ILSVRC2012_img_train"),
        (("imagenette",), "uv run --with tensorflow cnn-jax prepare imagenette --data-dir"),
        (("imagenette", "--from-files", "."), "prepare imagenette --data-dir {} --from-files .`"),
        (("folder:x",), "folder:x"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, run_here, options, message):
    monkeypatch.chdir(tmp_path)
    done = run_here(*options, "--data-dir", tmp_path / "tfds")
    assert message.format(tmp_path / "tfds") in told(done)
    assert not (tmp_path / "tfds").exists() or not leftovers(tmp_path / "tfds")


def test_a_damaged_file_is_told_and_nothing_is_lost(raw, tmp_path, run_here):
    shutil.copytree(raw, tmp_path / "raw")
    cut = tmp_path / "raw" / "t10k-images-idx3-ubyte.gz"
    cut.write_bytes(cut.read_bytes()[:-1000])
    options = ("fashion_mnist", "--from-files", tmp_path / "raw", "--data-dir", tmp_path / "tfds")
    assert f"cannot read {cut}: Compressed file ended before" in told(run_here(*options))
    assert list((tmp_path / "tfds").iterdir()) == []


def test_a_tar_that_is_damaged_in_the_middle_is_told_and_left_clean(tmp_path, run_here):
    write_imagenet(tmp_path / "raw")
    path = tmp_path / "raw" / "ILSVRC2012_img_train.tar"
    content = bytearray(path.read_bytes())
    inner = content.rindex(b"n02105855_0.JPEG")  # in the last of the inner tars
    content[inner : inner + 300] = b"\xff" * 300
    path.write_bytes(content)
    done = run_here("imagenet2012", "--from-files", tmp_path / "raw", "--data-dir", tmp_path / "tfds")
    assert f"cannot read {path}" in told(done)
    assert not leftovers(tmp_path / "tfds")


def test_without_a_network_it_is_told_and_not_tried_again(tmp_path, monkeypatch, run_here):
    """A proxy that is not there stands for a network that is not there; one that hangs up counts."""

    def proxy(url):
        monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxy that it began with
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, url)

    proxy("http://127.0.0.1:9")
    line = told(run_here("fashion_mnist", "--data-dir", tmp_path))
    assert "cannot fetch" in line and "Connection refused" in line
    with FileServer(tmp_path) as server:
        proxy(server.url)
        for name in ("fashion_mnist", "cifar10"):
            assert "cannot fetch" in told(run_here(name, "--data-dir", tmp_path))
    assert len(server.asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_builder_of_ones_own_is_prepared_by_its_own_code(tmp_path):
    """A builder that TFDS knows by name; in place of a download it draws its images."""
    code = builder_code("tiny_download", prepare_now=False) + (
        "import cnn_jax\n"
        "ask = lambda split, **how: len(cnn_jax.open_dataset('tiny_download', split, sys.argv[1], **how))\n"
        "print(ask('train', download=True), ask('test'), 'tensorflow' in sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "30 20 False"
    assert len(open_dataset("tiny_download", "train", tmp_path)) == 30


def test_a_builder_that_needs_another_package_says_how(tmp_path):
    code = builder_code("tiny_archive", prepare_now=False).replace("return {", "import tensorflow_of_old; return {")
    code += (
        "from cnn_jax.data.prepare import prepare\n"
        "try:\n    prepare('tiny_archive', sys.argv[1])\n"
        "except ValueError as error:\n    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert (
        "TFDS needs tensorflow_of_old to prepare tiny_archive: run once `uv run --with tensorflow_of_old "
        f"cnn-jax prepare tiny_archive --data-dir {tmp_path}`"
    ) in out


# ----- the real thing


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Fashion-MNIST's files as its authors publish them: those of Debian, with the gzip headers that it strips."""
    if not PUBLISHED.is_dir():
        pytest.skip(f"{PUBLISHED} is not here")
    folder = tmp_path_factory.mktemp("published")
    for file in PUBLISHED.glob("*.gz"):
        old = file.read_bytes()
        time_ = (1504176606 if file.name.startswith("train") else 1504176627).to_bytes(4, "little")
        header = b"\x1f\x8b\x08\x08" + time_ + old[8:10] + file.name.removesuffix(".gz").encode() + b"\0"
        (folder / file.name).write_bytes(header + old[10:])
    return folder


@pytest.mark.slow
def test_fashion_mnist_is_fetched_from_its_authors_killed_and_gone_on_with(published, tmp_path):
    """A proxy of our own answers for their server; TFDS's checksums say that these are their files."""
    options = ("fashion_mnist", "--data-dir", tmp_path)
    with FileServer(published, hold=2_000_000) as server:
        env = os.environ | {"http_proxy": server.url}
        part = tmp_path / "downloads" / "fashion_mnist" / "train-images-idx3-ubyte.gz.part"
        with subprocess.Popen(command(*options), env=env, stdout=subprocess.DEVNULL) as process:
            while not part.exists() or part.stat().st_size < 1_000_000:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
        had = part.stat().st_size
        server.go_on.set()
        assert run(*options, env=env).returncode == 0
    assert ("train-images-idx3-ubyte.gz", f"bytes={had}-") in server.asked
    assert_whole(tmp_path, PUBLISHED)


@pytest.mark.slow
def test_all_of_fashion_mnist_is_as_in_its_files(published, tmp_path):
    assert run("fashion_mnist", "--from-files", PUBLISHED, "--data-dir", tmp_path).returncode == 0
    assert_whole(tmp_path, PUBLISHED)
    assert [len(open_dataset("fashion_mnist", split, tmp_path)) for split in ("train", "test")] == [60_000, 10_000]
