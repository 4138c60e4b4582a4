"""train.py on data of every kind: both engines, kills, other batch sizes, several devices, bad files."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from fake_gcs import serve
from loopback import run_script
from odd_images import BAD, GOOD
from PIL import Image
from raw_sets import write_idx_set
from runs import SAFETY, records, summary

from cnn_jax.data.prepare import prepare

SMALL = ("--epochs", 3, "--batch-size", 16, "--threads", 2, "--augment.rotate", 0, "--optimizer.lr", 0.005)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """203 training and 1,003 test images of 28x28 whose brightness says the class, three classes."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 203), ("test", 1003)):
        labels = rng.integers(0, 3, count)
        arrays[f"x_{split}"] = rng.integers(0, 80, (count, 28, 28)).astype(np.uint8) + 80 * labels[
            :, None, None
        ].astype(np.uint8)
        arrays[f"y_{split}"] = labels
    path = tmp_path_factory.mktemp("npz") / "three.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """JPEGs of several sizes: 180 to train and 30 to test, three classes by colour."""
    rng = np.random.default_rng(1)
    top = tmp_path_factory.mktemp("folder")
    for split, count in (("train", 60), ("test", 10)):
        for channel, name in enumerate(("red", "green", "blue")):
            (top / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(40, 90, 2)
                pixels = rng.integers(0, 120, (height, width, 3)).astype(np.uint8)
                pixels[:, :, channel] += 120
                Image.fromarray(pixels).save(top / split / name / f"{number:03}.jpg", quality=90)
    return top


def finished(command) -> subprocess.CompletedProcess:
    done = subprocess.run(**command, capture_output=True, timeout=SAFETY)
    assert done.returncode == 0, done.stderr
    return done


def given(log) -> list:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def data_options(kind, npz, folder):
    if kind == "host of many sizes":
        return ("--dataset", f"folder:{folder}", "--augment.crop", "random_resized")
    return ("--dataset", npz, "--engine", kind)


@pytest.fixture(scope="module", params=["device", "host of many sizes"])
def uninterrupted(request, npz, folder, train_here, tmp_path_factory):
    """Options, their whole run, and the images of its steps."""
    options, out, steps = (*SMALL, *data_options(request.param, npz, folder)), tmp_path_factory.mktemp("whole"), []
    assert train_here(*options, "--out", out, steps=steps).returncode == 0
    return options, out, steps


def stop_in_mid_epoch(spied, uninterrupted, out, signum):
    """Three steps behind the first checkpoint, which is on disk. Returns the steps of an epoch, and what was said."""
    options, _, whole = uninterrupted
    steps_per_epoch = len(whole) // 3
    saved = out / "checkpoints" / str(steps_per_epoch)
    moment = f"{int(signum)} {steps_per_epoch + 3} {saved}"
    stopped = subprocess.run(
        **spied(out.with_suffix(".log"), *options, "--out", out, STOP=moment), capture_output=True, timeout=SAFETY
    )
    assert not (out / "summary.json").exists()
    return steps_per_epoch, stopped


def assert_goes_on(uninterrupted, out, rest):
    """With the images of an uninterrupted run to its very bits, and no record stands twice."""
    _, whole_out, whole = uninterrupted
    assert rest == whole[len(whole) - len(rest) :]
    assert summary(out)["params_digest"] == summary(whole_out)["params_digest"]
    steps = [record["step"] for record in records(out)]
    assert steps == sorted(steps) and steps[-1] == len(whole)
    trained = [record["step"] for record in records(out) if record["kind"] == "train"]
    assert trained == sorted(set(trained))


def test_a_run_killed_in_mid_epoch_and_resumed_sees_the_images_of_an_uninterrupted_one(spied, uninterrupted, tmp_path):
    out = tmp_path / "run"
    steps_per_epoch, killed = stop_in_mid_epoch(spied, uninterrupted, out, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    done = finished(spied(tmp_path / "rest.log", "--resume", "--out", out))
    assert "TENSORFLOW False" in done.stdout
    rest = given(tmp_path / "rest.log")
    assert len(rest) == 2 * steps_per_epoch
    assert_goes_on(uninterrupted, out, rest)


def test_a_run_stopped_in_mid_epoch_and_resumed_goes_on_at_the_next_image(spied, uninterrupted, train_here, tmp_path):
    out = tmp_path / "run"
    steps_per_epoch, stopped = stop_in_mid_epoch(spied, uninterrupted, out, signal.SIGTERM)
    assert stopped.returncode == 75
    assert stopped.stderr == (
        f"train.py: stopped by SIGTERM at step {steps_per_epoch + 4}; the checkpoint is saved; "
        f"go on with: uv run train.py --resume --out {out}\n"
    )
    rest = []
    assert train_here("--resume", "--out", out, steps=rest).returncode == 0
    assert len(rest) == 2 * steps_per_epoch - 4
    assert_goes_on(uninterrupted, out, rest)


def test_both_engines_train_the_same_network(train_here, npz, tmp_path):
    for engine in ("device", "host"):
        options = (*SMALL, "--dataset", npz, "--engine", engine, "--out", tmp_path / engine)
        done = train_here(*options, "--augment.rotate", 10)
        assert done.returncode == 0, done.stderr
        assert summary(tmp_path / engine)["engine"] == engine
    one, other = summary(tmp_path / "device"), summary(tmp_path / "host")
    assert one["params_digest"] == other["params_digest"]
    assert one["data_wait_s"] == 0 <= other["data_wait_s"]  # which hundredths of a second may not show
    waits = [r["data_wait"] for r in records(tmp_path / "host") if r["kind"] == "train"]
    assert max(waits) > 0 and all(0 <= wait <= 1 for wait in waits)


def test_another_batch_size_on_resume_goes_on_at_the_next_image(train_here, npz, tmp_path):
    out, before, after = tmp_path / "run", [], []
    stopped = train_here(*SMALL, "--dataset", npz, "--epochs", 4, "--out", out, steps=before, stop=(signal.SIGTERM, 16))
    assert "stopped by SIGTERM at step 17;" in stopped.stderr  # 203 // 16 = 12 steps an epoch
    step = 17
    done = train_here("--resume", "--out", out, "--batch-size", 40, steps=after)
    assert "goes on with batch_size: 16 -> 40" in done.stdout
    assert {len(row) for _, row in after} == {40}
    cut = before[-1][0]
    of_epoch = {epoch: [i for e, row in before + after if e == epoch for i in row] for epoch in range(4)}
    assert all(len(set(images)) == len(images) > 203 - 40 for images in of_epoch.values())  # none twice
    expected = np.random.default_rng((0, cut)).permutation(203)
    assert of_epoch[cut] == expected[: len(of_epoch[cut])].tolist()
    found = records(out)
    assert [r["epoch"] for r in found if r["kind"] == "test"] == [1, 2, 3, 4]
    assert summary(out)["steps"] == step + len(after)
    assert [r["lr"] for r in found if r["kind"] == "train"][-1] < 0.002  # the cosine ends where it should
    again = train_here("--resume", "--out", out)
    assert "complete" in again.stdout and json.loads((out / "config.json").read_text())["batch_size"] == 40


def test_ctrl_c_with_worker_processes_saves_and_leaves_none_of_them(spied, folder, tmp_path):
    """A terminal's Ctrl-C reaches every process of the group. The run would not end by itself."""
    options = (*SMALL, *data_options("host of many sizes", None, folder), "--workers", 2, "--epochs", 100_000)
    command = spied(tmp_path / "log", *options, "--out", tmp_path / "run")
    process = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None and not ((tmp_path / "log").exists() and len(given(tmp_path / "log")) > 5):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SAFETY)
    assert process.returncode == 130, stderr
    told, go_on = r"^train.py: stopped by SIGINT at step \d+; the checkpoint is saved; ", "go on with: uv run train.py"
    assert re.search(f"{told}{go_on} --resume --out {tmp_path / 'run'}$", stderr, re.MULTILINE), stderr
    assert "Traceback" not in stderr
    end = time.monotonic() + SAFETY
    while subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).stdout:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_plateau_refuses_another_batch_size(train_here, npz, tmp_path):
    options = ("--dataset", npz, "--epochs", 1, "--batch-size", 40, "--schedule.kind", "plateau")
    assert train_here(*options, "--out", tmp_path / "run").returncode == 0
    done = train_here("--resume", "--out", tmp_path / "run", "--batch-size", 16, "--epochs", 2, "--allow-change")
    assert done.returncode == 2 and "plateau averages over epochs of one length" in done.stderr


ON_EIGHT_DEVICES = """
import sys, train
options, outs = sys.argv[1:-2], sys.argv[-2:]
for engine, out in zip(("device", "host"), outs):
    print("CODE", train.main([*options, "--engine", engine, "--out", out]))
print("CODE", train.main([*options, "--batch-size", "63"]))
"""


def test_eight_devices_train_what_one_trains_and_count_1003_images_exactly(train_here, train_command, npz, tmp_path):
    options = ("--dataset", npz, "--batch-size", 64, "--epochs", 1, "--optimizer.lr", 0.01)
    one = train_here(*options, "--engine", "device", "--out", tmp_path / "one")
    outs = [tmp_path / name for name in ("one", "device", "host")]
    command = train_command()
    command["args"] = [sys.executable, "-c", ON_EIGHT_DEVICES, *map(str, (*options, *outs[1:]))]
    command["env"]["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    eight = subprocess.run(**command, capture_output=True, timeout=SAFETY)
    assert one.returncode == 0 and re.findall("CODE (.*)", eight.stdout) == ["0", "0", "2"], eight.stderr
    assert "on 1 x cpu" in one.stdout and eight.stdout.count("on 8 x cpu") == 2
    assert eight.stderr == "train.py: --batch-size 63 does not divide over 8 devices; 56 would\n"
    found = [summary(out) for out in outs]
    assert [run["engine"] for run in found] == ["device", "device", "host"]
    assert {run["test_count"] for run in found} == {1003}
    assert len({run["test_top1"] for run in found}) == 1  # brightness is learnt or not, with no image near
    losses = [next(record["loss"] for record in records(out) if record["kind"] == "train") for out in outs]
    assert max(losses) - min(losses) < 1e-4


def test_a_validation_share_keeps_the_test_images_for_the_end(train_here, npz, tmp_path):
    done = train_here(*SMALL, "--dataset", npz, "--validation", 0.2, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "162 train, 1,003 test, 41 validation images" in done.stdout and "val top-1" in done.stdout
    found = records(tmp_path / "run")
    assert [r["count"] for r in found if r["kind"] == "validation"] == [41] * 3
    assert not [r for r in found if r["kind"] == "test"]
    assert summary(tmp_path / "run")["test_count"] == 1003


def test_a_part_of_a_split_is_trained_on(train_here, npz, tmp_path):
    options = ("--dataset", npz, "--train-split", "train[:50%]", "--test-split", "test[-100:]", "--epochs", 1)
    done = train_here(*options, "--batch-size", 16, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "102 train, 100 test images" in done.stdout


def test_synthetic_images_train(train_here, tmp_path):
    options = ("--dataset", "synthetic:28x28x5", "--train-split", "train[:160]", "--test-split", "test[:32]")
    done = train_here(*options, "--epochs", 1, "--batch-size", 16, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "run")["test_count"] == 32


@pytest.fixture
def odd_folder(folder, tmp_path):
    """The folder with every odd file in it, some in each class."""
    top = tmp_path / "odd"
    subprocess.run(["cp", "-r", folder, top], check=True)
    for number, (name, (data, *_)) in enumerate([*BAD.items(), *GOOD.items()]):
        (top / "train" / ("red", "green", "blue")[number % 3] / f"x_{name}").write_bytes(data)
    return top


def test_bad_images_end_a_run_with_their_name_or_are_skipped_and_counted(train_here, odd_folder, tmp_path):
    """Fifty odd files: what can be read is trained on, what cannot is named."""
    bad = {name for name in BAD if not name.endswith(".gif")}  # torchvision's folders hold no GIFs
    options = (
        "--dataset",
        f"folder:{odd_folder}",
        "--epochs",
        1,
        "--batch-size",
        16,
        "--augment.crop",
        "random_resized",
    )
    done = train_here(*options, "--out", tmp_path / "error")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert re.match(rf"train.py: {odd_folder}/train/\w+/x_\S+ is .*; --bad-images skip goes on without", done.stderr)
    done = train_here(*options, "--bad-images", "skip", "--out", tmp_path / "skip")
    assert done.returncode == 0, done.stderr
    told = set(re.findall(r"^skipped: .*/x_(\S+) (?:is|has) ", done.stderr, re.MULTILINE))
    skipped = summary(tmp_path / "skip")["skipped_images"]["train"]
    assert told <= bad and len(told) == skipped >= len(bad) - 5  # the epoch's tail draws up to 15 images less
    assert f"{skipped} bad images skipped" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset", "folder:/nowhere"), "/nowhere is not a directory"),
        (("--dataset", "nowhere.npz"), "cannot read nowhere.npz"),
        (("--dataset", "synthetic:224"), "is not like synthetic:224x224x1000"),
        (("--train-split", "train[:5"), "train[:5"),
        (("--train-split", "train[5:5]"), "split 'train[5:5]' of mnist_5k is empty"),
        (("--test-split", "tset"), "did you mean test"),
        (("--validation", "1"), "validation must be at least 0 and at most 0.9, not 1.0"),
        (("--threads", "-1"), "threads must be at least 0"),
        (("--engine", "gpu"), "engine"),
    ],
)
def test_a_mistake_about_data_is_one_line_and_exit_code_2(train_here, options, message):
    done = train_here(*options)
    assert done.returncode == 2
    assert done.stderr.startswith("train.py: ") and message in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stdout + done.stderr


TWO_PROCESSES = """
import sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
from functools import partial
import numpy as np
from cnn_jax.data import open_dataset
from cnn_jax.data.crops import random_resized_box
from cnn_jax.data.engines import FromHost
from cnn_jax.data.order import epoch_order
from cnn_jax.data.views import random_part
from cnn_jax.sharding import data_mesh, replicated, split
dataset = open_dataset(f"folder:{sys.argv[4]}", "train")
read = []
view = partial(random_part, size=16, box=random_resized_box)
def spy(image, channels, key):
    read.append(key[2])
    return view(image, channels, key)
sharding = split(data_mesh(12))
engine = FromHost(dataset, spy, 16, split=sharding, threads=2)
rows = epoch_order(0, 0, len(dataset), 12)
total = jax.jit(lambda images: images.astype("int32").sum((1, 2, 3)), out_shardings=replicated(sharding.mesh))
sums = [total(batch["image"]).tolist() for batch in engine.batches(rows, 0)]
print("READ", sorted(read))
print("SUMS", sums)
"""


def test_two_processes_together_see_each_image_once_an_epoch(folder):
    both = run_script(TWO_PROCESSES, 2, 1, folder)
    assert [end.code for end in both] == [0, 0], both
    read = [json.loads(re.search(r"READ (.*)", end.stdout)[1]) for end in both]
    assert len(read[0]) == len(read[1]) == 90 and sorted(read[0] + read[1]) == list(range(180))
    sums = [re.search(r"SUMS (.*)", end.stdout)[1] for end in both]
    assert sums[0] == sums[1]  # both hold the same global batches


def test_a_bucket_that_fails_now_and_then_costs_no_bit(train_here, train_command, tmp_path):
    """A 503 and a read without an answer: both are asked again, though bad images would be skipped."""
    write_idx_set(tmp_path / "raw")
    prepare("fashion_mnist", tmp_path / "bucket" / "tfds", tmp_path / "raw")
    faults = {12: 503, 31: 0}
    options = ("--dataset", "fashion_mnist", *SMALL, "--batch-size", 10, "--engine", "host", "--bad-images", "skip")
    whole = train_here(*options, "--data-dir", tmp_path / "bucket" / "tfds", "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    with serve(tmp_path, lambda read: faults.pop(read, None)) as environment:
        command = train_command(*options, "--data-dir", "gs://bucket/tfds", "--out", tmp_path / "run")
        command["env"] |= environment
        done = subprocess.run(**command, capture_output=True, timeout=SAFETY)
    assert done.returncode == 0 and not faults, done.stderr
    assert summary(tmp_path / "run")["params_digest"] == summary(tmp_path / "whole")["params_digest"]
    assert summary(tmp_path / "run")["skipped_images"] == {"train": 0, "test": 0}
