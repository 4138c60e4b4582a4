"""train.py on data of every kind: both engines, kills, other batch sizes, bad files. Whole processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from odd_images import BAD, GOOD
from PIL import Image
from runs import summary

SMALL = ("--epochs", 3, "--batch-size", 16, "--threads", 2, "--augment.rotate", 0, "--optimizer.lr", 0.005)

# Writes down the images of every step that training is given, and whether TensorFlow came along. With STOP="signal
# step path" it sends itself the signal before that step, once the path exists.
SPY = """
import json, os, sys, time
import train
from cnn_jax.data import engines
log = open(sys.argv[1], "a")
signum, stop, path = os.environ.get("STOP", "0 0 .").split()
steps = 0
for engine in (engines.OnDevice, engines.FromHost):
    def batches(self, rows, epoch=None, given=engine.batches):
        for row, batch in zip(rows, given(self, rows, epoch)):
            if epoch is not None:
                global steps
                if steps == int(stop) > 0:
                    while not os.path.exists(path):
                        time.sleep(0.01)
                    os.kill(os.getpid(), int(signum))
                steps += 1
                print(json.dumps([epoch, row.tolist()]), file=log, flush=True)
            yield batch
    engine.batches = batches
if __name__ == "__main__":
    code = train.main(sys.argv[2:])
    print("TENSORFLOW", "tensorflow" in sys.modules)
    sys.exit(code)
"""


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


@pytest.fixture
def spied(train_command, tmp_path):
    """Starts train.py with a log of the images that it trains on."""

    def command(log, *options) -> dict:
        script = tmp_path / "spy.py"
        script.write_text(SPY)
        found = train_command()
        env = found["env"] | {"PYTHONPATH": str(ROOT)}
        return found | {"args": [sys.executable, str(script), str(log), *map(str, options)], "env": env}

    return command


def finished(command) -> subprocess.CompletedProcess:
    done = subprocess.run(**command, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


def given(log) -> list:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def data_options(kind, npz, folder):
    if kind == "host of many sizes":
        return ("--dataset", f"folder:{folder}", "--augment.crop", "random_resized")
    return ("--dataset", npz, "--engine", kind)


@pytest.mark.parametrize("kind", ["device", "host of many sizes"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_stopped_in_mid_epoch_and_resumed_sees_the_images_of_an_uninterrupted_one(
    spied, npz, folder, tmp_path, kind, signum
):
    options = (*SMALL, *data_options(kind, npz, folder))
    done = finished(spied(tmp_path / "whole.log", *options, "--out", tmp_path / "whole"))
    assert "TENSORFLOW False" in done.stdout
    whole = given(tmp_path / "whole.log")
    steps_per_epoch = len(whole) // 3
    cut, log = tmp_path / "cut", tmp_path / "cut.log"
    saved = cut / "checkpoints" / str(steps_per_epoch)
    command = spied(log, *options, "--out", cut)
    command["env"]["STOP"] = f"{int(signum)} {steps_per_epoch + 3} {saved}"
    stopped = subprocess.run(**command, capture_output=True, timeout=600)
    assert stopped.returncode == {signal.SIGTERM: 75, signal.SIGKILL: -9}[signum], stopped.stderr
    log.unlink()
    finished(spied(log, "--resume", "--out", cut))
    rest = given(log)
    assert rest == whole[len(whole) - len(rest) :]
    assert len(rest) == {signal.SIGTERM: 2 * steps_per_epoch - 4, signal.SIGKILL: 2 * steps_per_epoch}[signum]
    assert summary(cut)["params_digest"] == summary(tmp_path / "whole")["params_digest"]


def test_both_engines_train_the_same_network(spied, run_train, npz, tmp_path):
    for engine in ("device", "host"):
        options = (*SMALL, "--dataset", npz, "--engine", engine, "--out", tmp_path / engine)
        done = run_train(*options, "--augment.rotate", 10)
        assert done.returncode == 0, done.stderr
        assert summary(tmp_path / engine)["engine"] == engine
    one, other = summary(tmp_path / "device"), summary(tmp_path / "host")
    assert one["params_digest"] == other["params_digest"]
    assert one["data_wait_s"] == 0 and other["data_wait_s"] > 0
    records = [json.loads(line) for line in (tmp_path / "host" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= r["data_wait"] <= 1 for r in records if r["kind"] == "train")


def test_another_batch_size_on_resume_goes_on_at_the_next_image(spied, npz, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    command = spied(log, *SMALL, "--dataset", npz, "--epochs", 4, "--out", out)
    command["env"]["STOP"] = f"{int(signal.SIGTERM)} 16 ."
    stopped = subprocess.run(**command, capture_output=True, timeout=600)
    assert "stopped by SIGTERM at step 17;" in stopped.stderr  # 203 // 16 = 12 steps an epoch
    step, before = 17, given(log)
    log.unlink()
    done = finished(spied(log, "--resume", "--out", out, "--batch-size", 40))
    assert "goes on with batch_size: 16 -> 40" in done.stdout
    after = given(log)
    assert {len(row) for _, row in after} == {40}
    cut = before[-1][0]
    of_epoch = {epoch: [i for e, row in before + after if e == epoch for i in row] for epoch in range(4)}
    assert all(len(set(images)) == len(images) > 203 - 40 for images in of_epoch.values())  # none twice
    expected = np.random.default_rng((0, cut)).permutation(203)
    assert of_epoch[cut] == expected[: len(of_epoch[cut])].tolist()
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records if r["kind"] == "test"] == [1, 2, 3, 4]
    assert summary(out)["steps"] == step + len(after)
    assert [r["lr"] for r in records if r["kind"] == "train"][-1] < 0.002  # the cosine ends where it should
    again = finished(spied(log, "--resume", "--out", out))
    assert "complete" in again.stdout and json.loads((out / "config.json").read_text())["batch_size"] == 40


def test_ctrl_c_with_worker_processes_saves_and_leaves_none_of_them(spied, folder, tmp_path):
    """A terminal's Ctrl-C reaches every process of the group."""
    options = (*SMALL, *data_options("host of many sizes", None, folder), "--workers", 2, "--epochs", 50)
    command = spied(tmp_path / "log", *options, "--out", tmp_path / "run")
    process = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None and not ((tmp_path / "log").exists() and len(given(tmp_path / "log")) > 5):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert re.search(r"^train.py: stopped by SIGINT at step \d+; the checkpoint is saved", stderr, re.MULTILINE)
    assert "Traceback" not in stderr
    end = time.monotonic() + 20
    while time.monotonic() < end and subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).stdout:
        time.sleep(0.1)
    assert not subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).stdout


def test_a_plateau_refuses_another_batch_size(run_train, npz, tmp_path):
    options = ("--dataset", npz, "--epochs", 1, "--batch-size", 16, "--schedule.kind", "plateau")
    assert run_train(*options, "--out", tmp_path / "run").returncode == 0
    done = run_train("--resume", "--out", tmp_path / "run", "--batch-size", 40, "--epochs", 2, "--allow-change")
    assert done.returncode == 2 and "plateau averages over epochs of one length" in done.stderr


def test_1003_images_are_counted_exactly_on_one_and_eight_devices(run_train, train_command, npz, tmp_path):
    found = {}
    for devices, engine in ((1, "device"), (8, "device"), (8, "host")):
        out = tmp_path / f"{engine}{devices}"
        env = train_command()["env"] | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        options = ("--dataset", npz, "--batch-size", 64, "--epochs", 1, "--engine", engine, "--optimizer.lr", 0.01)
        done = run_train(*options, "--out", out, env=env)
        assert done.returncode == 0, done.stderr
        assert f"on {devices} x cpu" in done.stdout
        found[engine, devices] = summary(out)
    assert {run["test_count"] for run in found.values()} == {1003}
    assert len({run["test_top1"] for run in found.values()}) == 1  # brightness is learnt or not, with no image near


def test_a_validation_share_keeps_the_test_images_for_the_end(run_train, npz, tmp_path):
    done = run_train(*SMALL, "--dataset", npz, "--validation", 0.2, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "162 train, 1,003 test, 41 validation images" in done.stdout and "val top-1" in done.stdout
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [r["count"] for r in records if r["kind"] == "validation"] == [41] * 3
    assert not [r for r in records if r["kind"] == "test"]
    assert summary(tmp_path / "run")["test_count"] == 1003


def test_a_part_of_a_split_is_trained_on(run_train, npz, tmp_path):
    options = ("--dataset", npz, "--train-split", "train[:50%]", "--test-split", "test[-100:]", "--epochs", 1)
    done = run_train(*options, "--batch-size", 16, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "102 train, 100 test images" in done.stdout


def test_synthetic_images_train(run_train, tmp_path):
    options = ("--dataset", "synthetic:28x28x5", "--train-split", "train[:160]", "--test-split", "test[:32]")
    done = run_train(*options, "--epochs", 1, "--batch-size", 16, "--out", tmp_path / "run")
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


def test_bad_images_end_a_run_with_their_name_or_are_skipped_and_counted(run_train, odd_folder, tmp_path):
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
    done = run_train(*options, "--out", tmp_path / "error")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert re.match(rf"train.py: {odd_folder}/train/\w+/x_\S+ is .*; --bad-images skip goes on without", done.stderr)
    done = run_train(*options, "--bad-images", "skip", "--out", tmp_path / "skip")
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
def test_a_mistake_about_data_is_one_line_and_exit_code_2(run_train, options, message):
    done = run_train(*options)
    assert done.returncode == 2
    assert done.stderr.startswith("train.py: ") and message in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stdout + done.stderr


TWO_PROCESSES = """
import sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[1]))
from functools import partial
import numpy as np
from cnn_jax.data import open_dataset
from cnn_jax.data.crops import random_resized_box
from cnn_jax.data.engines import FromHost
from cnn_jax.data.order import epoch_order
from cnn_jax.data.views import random_part
from cnn_jax.sharding import data_mesh, replicated, split
dataset = open_dataset(f"folder:{sys.argv[3]}", "train")
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


def test_two_processes_together_see_each_image_once_an_epoch(folder, tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = lambda number: [sys.executable, "-c", TWO_PROCESSES, str(number), str(port), str(folder)]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(command(number), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs[0][1][-2000:]
    read = [json.loads(re.search(r"READ (.*)", out)[1]) for out, _ in outputs]
    assert len(read[0]) == len(read[1]) == 90 and sorted(read[0] + read[1]) == list(range(180))
    sums = [re.search(r"SUMS (.*)", out)[1] for out, _ in outputs]
    assert sums[0] == sums[1]  # both hold the same global batches
