"""`cnn-jax evaluate` on a real run and on weight files, against figures worked out beside it."""

import csv
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import UserError, create_model, export_state_dict, model_info
from cnn_jax.cli import main
from cnn_jax.commands import evaluate
from cnn_jax.evaluation import PROTOCOLS

RNG = np.random.default_rng(0)
CLASSES = ("ant", "bee", "cat", "dog")


def run(capsys, *argv):
    code = main(["evaluate", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty PNG files of many sizes in four class folders, with their pixels and labels."""
    root, images, labels = tmp_path_factory.mktemp("animals"), [], []
    for label, name in enumerate(CLASSES):
        (root / "test" / name).mkdir(parents=True)
        for i in range(6 + label):
            height, width = [(40, 60), (60, 40), (33, 33)][i % 3]
            pixels = np.kron(RNG.integers(0, 256, (4, 4, 3)), np.ones((15, 15, 1))).astype(np.uint8)[:height, :width]
            Image.fromarray(pixels).save(root / "test" / name / f"{i}.png")
            images, labels = [*images, pixels], [*labels, label]
    return root, images, np.array(labels)


def test_weights_on_a_folder_of_images_give_the_figures_worked_out_by_hand(capsys, small_weights, folder, tmp_path):
    path, variables = small_weights
    root, images, labels = folder
    argv = ("--weights", path, "--dataset", f"folder:{root}", "--batch-size", 7, "--out", tmp_path / "a" / "b")
    code, out, err = run(capsys, "resnet20_cifar", *argv)
    assert (code, err) == (0, "")

    info, seen = model_info("resnet20_cifar"), []
    for pixels in images:  # shorter side to 32, the middle
        height, width = pixels.shape[:2]
        new = tuple(int(32 * side / min(height, width)) for side in (width, height))
        left, top = (round((side - 32) / 2) for side in new)
        image = Image.fromarray(pixels).resize(new, Image.Resampling.BILINEAR).crop((left, top, left + 32, top + 32))
        seen.append((np.asarray(image, np.float32) / 255 - info.mean) / info.std)
    logits = create_model("resnet20_cifar", num_classes=4).apply(variables, np.array(seen, np.float32), train=False)
    probability = np.asarray(jax.nn.softmax(logits), np.float64)
    right = probability.argmax(1) == labels
    found = json.loads((tmp_path / "a" / "b" / "metrics.json").read_text())
    assert (found["count"], found["skipped"], found["protocol"]) == (30, 0, "center")
    assert (found["image_size"], found["resize"], found["interpolation"]) == (32, 32, "bilinear")
    assert found["top1"] == right.mean() and found["top5"] == 1
    assert found["nll"] == pytest.approx(-np.log(probability[np.arange(30), labels]).mean(), rel=1e-4)
    assert f"folder:{root} test, center: 30 images" in out and f"top-1 {right.mean():.2%}" in out

    with open(tmp_path / "a" / "b" / "classes.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], int(row["images"])) for row in rows] == [("ant", 6), ("bee", 7), ("cat", 8), ("dog", 9)]
    for label, row in enumerate(rows):
        assert int(row["correct"]) == right[labels == label].sum()
        assert float(row["top1"]) == pytest.approx(right[labels == label].mean())
    worst = out.splitlines()[3].split()[0]
    assert float(rows[CLASSES.index(worst)]["top1"]) == min(float(row["top1"]) for row in rows)
    for name in ("confusion.png", "reliability.png"):
        assert np.asarray(Image.open(tmp_path / "a" / "b" / name).convert("L")).std() > 5


def test_published_weights_see_what_their_publisher_tested_them_on_but_for_what_is_given(capsys, monkeypatch):
    def told(name, weights, **seen):
        raise UserError(f"{name}, {weights}: {seen}")

    monkeypatch.setattr(evaluate, "open_network", told)
    for options, seen in (
        ((), "'image_size': None, 'resize': None, 'crop': None, 'interpolation': None"),
        (("--resize", 384), "'image_size': None, 'resize': 384, 'crop': None, 'interpolation': None"),
        (
            ("--image-size", 160, "--crop", 0.9, "--interpolation", "bilinear"),
            "'image_size': 160, 'resize': None, 'crop': 0.9, 'interpolation': 'bilinear'",
        ),
    ):
        code, _, err = run(capsys, "resnet50.a1_in1k", "--dataset", "imagenet2012", *options)
        assert code == 2 and f"resnet50.a1_in1k, None: {{'as_tested': True, {seen}}}" in err


@pytest.mark.parametrize("protocol", ["ten_crop", "dense"])
def test_other_protocols_see_every_image_too(capsys, small_weights, folder, protocol):
    argv = ("--weights", small_weights[0], "--dataset", f"folder:{folder[0]}", "--protocol", protocol, "--resize", 40)
    code, out, _ = run(capsys, "resnet20_cifar", *argv)
    assert code == 0 and f"{protocol}: 30 images\n" in out


def test_bad_images_end_the_command_or_are_counted(capsys, small_weights, folder, tmp_path):
    (tmp_path / "test").mkdir()
    for name in CLASSES:
        (tmp_path / "test" / name).symlink_to(folder[0] / "test" / name)
    (tmp_path / "test" / "emu").mkdir()
    (tmp_path / "test" / "emu" / "cut.png").write_bytes((folder[0] / "test" / "ant" / "0.png").read_bytes()[:60])
    other = tmp_path / "five.npz"  # one class more
    state_dict = export_state_dict("resnet20_cifar", small_weights[1])
    head = next(key for key, value in state_dict.items() if value.shape == (4, 64))
    bias = next(key for key, value in state_dict.items() if value.shape == (4,))
    np.savez(other, **(state_dict | {head: np.zeros((5, 64), np.float32), bias: np.zeros(5, np.float32)}))
    argv = ("resnet20_cifar", "--weights", other, "--dataset", f"folder:{tmp_path}")
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "emu/cut.png" in err
    code, out, err = run(capsys, *argv, "--bad-images", "skip")
    assert code == 0 and "center: 30 images, 1 bad ones left out\n" in out and "emu/cut.png" in err


@pytest.fixture
def trained(whole, data_dir, monkeypatch):
    """A short run of train.py on mnist_5k, which finds its data again."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    return whole[0]


@pytest.mark.parametrize("batch_size", [64, 100])
def test_a_run_is_as_good_as_its_summary_says(capsys, trained, batch_size, tmp_path):
    argv = ("--run", trained, "--dataset", "mnist_5k", "--batch-size", batch_size, "--out", tmp_path)
    code, out, _ = run(capsys, "lenet5_modern", *argv)
    found, summary = (
        json.loads((place).read_text()) for place in (tmp_path / "metrics.json", trained / "summary.json")
    )
    assert code == 0 and "mnist_5k test, fit: 1,000 images" in out
    assert [found["top1"], found["top5"], found["count"]] == [summary[f"test_{k}"] for k in ("top1", "top5", "count")]


def test_a_run_brings_its_own_data_set(capsys, trained):
    code, out, _ = run(capsys, "lenet5_modern", "--run", trained)
    assert code == 0 and "lenet5_modern on mnist_5k test, fit: 1,000 images" in out
    assert run(capsys, "lenet5_modern", "--run", trained, "--split", "train[:50]")[1].startswith(
        "lenet5_modern on mnist_5k train[:50], fit: 50 images"
    )


def test_mistakes_are_one_line_and_exit_code_2(capsys, small_weights, folder, trained, tmp_path):
    given, animals = ("--weights", small_weights[0]), ("--dataset", f"folder:{folder[0]}")
    for argv, line in (
        (("resnet20_cifar", *animals), "without weights; say which: resnet20_cifar.akamaster_cifar10; --weights FILE"),
        (("lenet5", *animals), "lenet5 is a network without weights; say which: --weights FILE or --run DIR"),
        (("resnet50", *animals), "say which: resnet50.a1_in1k"),
        (("resnet50.tv_in2k", *animals), "did you mean resnet50.tv_in1k"),
        (("vgg16", "--weights", "resnet50.tv_in1k", *animals), "are weights of resnet50, not of vgg16"),
        (("resnet20_cifar", *given, "--run", trained), "not allowed with argument"),
        (("resnet20_cifr", *given, *animals), "unknown model 'resnet20_cifr'; did you mean resnet20_cifar"),
        (("resnet20_cifar", *given), "--dataset says on what to evaluate"),
        (("resnet20_cifar", "--weights", tmp_path / "none.pth", *animals), "no weight file"),
        (("resnet20_cifar", "--run", tmp_path, *animals), "cannot read"),
        (("resnet20_cifar", "--run", trained), "trained lenet5_modern, not resnet20_cifar"),
        (("lenet5_modern", "--run", trained, *animals), "tells 10 classes apart, folder:"),
        (("lenet5_modern", "--run", trained, "--protocol", "dense"), "lenet5_modern does not take the views of dense"),
        (("resnet20_cifar", *given, *animals, "--protocol", "fit"), "--protocol fit takes images of one size"),
        (("resnet20_cifar", *given, *animals, "--protocol", "multi_scale"), "does not take the views of multi_scale"),
        (("resnet20_cifar", *given, *animals, "--protocol", "tencrop"), "did you mean ten_crop"),
        (("resnet20_cifar", *given, *animals, "--split", "tset"), "unknown split"),
        (("resnet20_cifar", *given, *animals, "--resize", 31), "--resize 31 is less than the 32 pixels of the crop"),
        (("resnet20_cifar", *given, *animals, "--protocol", "googlenet_144", "--crop", 0.9), "--crop means nothing to"),
        (("resnet20_cifar", *given, *animals, "--resize", 40, "--crop", 0.8), "not allowed with argument"),
        (("resnet20_cifar", *given, *animals, "--crop", "87.5"), "must be a share above 0, at most 1"),
        (("resnet20_cifar", *given, *animals, "--batch-size", "0"), "must be a positive whole number"),
        (("resnet20_cifar", *given, *animals, "--out", small_weights[0]), "cannot write to --out"),
    ):
        code, out, err = run(capsys, *argv)
        assert (code, out) == (2, ""), argv
        assert err.startswith("cnn-jax: ") and line in err and err.count("\n") == 1, err


def test_help_names_every_protocol_and_needs_no_jax():
    script = (
        "import atexit, sys, cnn_jax.cli\n"
        "atexit.register(lambda: print('jax' in sys.modules))\n"
        "cnn_jax.cli.main(['evaluate', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False"
    for name in PROTOCOLS:
        assert name in done.stdout
