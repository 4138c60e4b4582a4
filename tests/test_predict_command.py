"""`cnn-jax predict` on files, against what is worked out beside it."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from huggingface_hub import constants
from odd_images import JPEG
from PIL import Image
from small_weights import drawn

from cnn_jax import create_model, load_variables, model_info, preprocess
from cnn_jax.cli import main
from cnn_jax.data.imagenet import CLASSES
from cnn_jax.data.mnist_5k import read_split

PHOTOS = Path(__file__).parent / "photos"
RNG = np.random.default_rng(0)


def run(capsys, *argv):
    code = main(["predict", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files in a folder and one below it, another kind among them, and two that are broken."""
    root = tmp_path_factory.mktemp("photos")
    (root / "below").mkdir()
    for name in ("b.png", "a.PNG", "below/c.png"):
        pixels = np.kron(RNG.integers(0, 256, (4, 4, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(root / name)
    (root / "notes.txt").write_text("no image")
    (root / "below" / "broken.jpg").write_bytes(JPEG[:300])
    (root / "empty.jpg").touch()
    return root


GOOD = ("a.PNG", "b.png", "below/c.png")


@pytest.fixture
def found(small_weights, photos):
    """Probabilities of the good files, (3, 4)."""
    _, variables = small_weights
    seen = preprocess("resnet20_cifar")([photos / name for name in GOOD])
    logits = create_model("resnet20_cifar", num_classes=4).apply(variables, seen, train=False)
    return np.asarray(jax.nn.softmax(logits), np.float64)


def test_every_form_has_each_good_image_and_names_the_others(capsys, small_weights, photos, found):
    argv = (photos, "--model", "resnet20_cifar", "--weights", small_weights[0], "--top", 2, "--batch-size", 2)
    order = np.argsort(-found)[:, :2]
    paths = [str(photos / name) for name in GOOD]

    code, out, err = run(capsys, *argv, "--json")
    assert code == 1
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["image"] for line in lines] == paths
    assert [line["classes"] for line in lines] == order.tolist()
    assert [line["names"] for line in lines] == [[str(i) for i in row] for row in order]
    for line, probability, row in zip(lines, found, order, strict=True):
        assert line["probabilities"] == pytest.approx(probability[row], rel=1e-3)  # norms are folded
    first, second, last = err.splitlines()
    assert first == f"left out: {photos / 'empty.jpg'} is empty (0 bytes)"
    assert second.startswith(f"left out: {photos / 'below' / 'broken.jpg'} is a damaged JPEG")
    assert last == "cnn-jax: 2 of 5 images could not be read and are left out"

    code, out, _ = run(capsys, *argv, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1 and [row["image"] for row in rows] == [path for path in paths for _ in range(2)]
    assert [int(row["class"]) for row in rows] == order.ravel().tolist()
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    assert float(rows[3]["probability"]) == pytest.approx(lines[1]["probabilities"][1])

    code, out, _ = run(capsys, *argv[1:], photos / "b.png")
    head, one, two = out.splitlines()
    assert code == 0 and head.split() == ["image", "%", "class"]
    assert one.split() == [paths[1], f"{100 * lines[1]['probabilities'][0]:.2f}", str(order[1][0])]
    assert two.split() == [f"{100 * lines[1]['probabilities'][1]:.2f}", str(order[1][1])]


def test_a_run_is_shown_what_it_was_tested_on_and_knows_its_classes(capsys, whole, tmp_path):
    """Digits of 28 pixels, framed to 32: those that the best checkpoint gets right in its own test."""
    images, labels = read_split("test")
    some = range(0, 1000, 50)
    for i in some:
        Image.fromarray(images[i, :, :, 0]).save(tmp_path / f"{i:04}.png")
    code, out, err = run(capsys, tmp_path, "--run", whole[0], "--json", "--top", 1)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(lines)) == (0, "", 20)
    info = model_info("lenet5_modern")
    framed = np.pad(images[some], [(0, 0), (2, 2), (2, 2), (0, 0)])
    variables = load_variables(whole[0])
    logits = create_model("lenet5_modern").apply(
        variables, ((framed / 255 - info.mean) / info.std).astype(np.float32), train=False
    )
    assert [line["classes"] for line in lines] == np.asarray(logits).argmax(-1)[:, None].tolist()
    assert [line["names"] for line in lines] == [[str(line["classes"][0])] for line in lines]
    described = json.loads((whole[0] / "dataset.json").read_text())
    assert described == {"name": "mnist_5k", "classes": [*"0123456789"], "shape": [28, 28, 1]}


def test_a_tag_says_what_to_do_without_its_weights_and_names_what_is_there_with_them(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    argv = (PHOTOS / "small.webp", "--model", "mobilenetv3_small_050.lamb_in1k", "--json", "--top", 1)
    code, out, err = run(capsys, *argv)
    place = tmp_path / "cnn_jax" / "weights"
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.endswith(f"put it, about 6 MB, into {place} as mobilenetv3_small_050.lamb_in1k.safetensors\n")

    drawn(place, "mobilenetv3_small_050", 1000, "mobilenetv3_small_050.lamb_in1k.safetensors")
    code, out, err = run(capsys, *argv)
    found = json.loads(out)
    assert (code, err) == (0, "") and found["names"] == [CLASSES[found["classes"][0]]]


def test_mistakes_are_one_line_and_exit_code_2(capsys, small_weights, photos, whole, tmp_path):
    file, given = photos / "b.png", ("--model", "resnet20_cifar", "--weights", small_weights[0])
    (tmp_path / "empty").mkdir()
    for argv, line in (
        ((), "say which photographs and which network: cnn-jax predict PHOTO.jpg DIR/ --model resnet50.tv_in1k"),
        ((file,), "say which photographs and which network"),
        ((file, "--model", "resnet20_cifar"), "resnet20_cifar is a network without weights"),
        ((file, "--model", "resnet50"), "say which: resnet50.a1_in1k"),
        ((file, "--model", "resnet50.tv_in2k"), "did you mean resnet50.tv_in1k"),
        ((file, "--model", "vgg16", "--weights", "resnet50.tv_in1k"), "are weights of resnet50, not of vgg16"),
        ((file, *given[:3], tmp_path / "none.pth"), "no weight file"),
        ((file, "--run", whole[0], *given), "not allowed with argument"),
        ((file, "--run", whole[0], *given[2:]), "--weights are those of a --model"),
        ((file, "--run", tmp_path), "config.json"),
        ((file, tmp_path / "nowhere", *given), "there is no file or folder"),
        ((tmp_path / "empty", *given), "empty has no images (.jpg"),
        ((file, *given, "--top", 0), "must be a positive whole number"),
        ((file, *given, "--json", "--csv"), "not allowed with argument"),
    ):
        code, out, err = run(capsys, *argv)
        assert (code, out) == (2, ""), argv
        assert err.startswith("cnn-jax: ") and line in err and err.count("\n") == 1, err


def test_help_needs_no_jax():
    script = (
        "import atexit, sys, cnn_jax.cli\n"
        "atexit.register(lambda: print('jax' in sys.modules))\n"
        "cnn_jax.cli.main(['predict', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "--top" in done.stdout and done.stdout.splitlines()[-1] == "False"
