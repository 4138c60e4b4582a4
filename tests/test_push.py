"""`cnn-jax push` of a run and of published weights; the Hub that it is sent to only takes notes."""

import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from cnn_jax import create_model, load_pretrained, model_info, weight_card
from cnn_jax.cli import main
from cnn_jax.models.structure import structure
from cnn_jax.training import manifest, trained

NAME = "mobilenetv3_small_050"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What a run on grey images of 28 pixels leaves, as far as push looks at it, and its best variables."""
    shapes = structure(create_model(NAME, num_classes=3), (32, 32, 1)).variables
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
    monkeypatch.setattr(trained, "load_variables", lambda folder, which: {"best": variables}[which])
    folder = tmp_path / "run"
    (folder / "checkpoints" / "4").mkdir(parents=True)
    manifest.write(folder / "checkpoints" / "4", {"step": 4, "files": {}, "metrics": {"test_top1": 0.875}})
    values = {"model": NAME, "image_size": 32, "dataset": "shapes", "epochs": 7}
    (folder / "config.json").write_text(json.dumps(values))
    described = {"name": "shapes", "classes": ["cross", "disc", "ring"], "shape": [28, 28, 1]}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder, variables


def test_a_run_becomes_a_folder_that_loads(capsys, run, tmp_path):
    folder, variables = run
    assert main(["push", str(tmp_path / "out"), "--run", str(folder)]) == 0
    assert f"timm.create_model('local-dir:{tmp_path / 'out'}', pretrained=True)" in capsys.readouterr().out
    model, again = load_pretrained(str(tmp_path / "out"))
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    card = weight_card(str(tmp_path / "out"))
    assert card.classes == ("cross", "disc", "ring") and model.num_classes == 3
    assert (card.input_size, card.resize) == ((32, 32, 1), 28)  # framed, as it was tested
    assert card.mean == model_info(NAME).normalization(1)[0]
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Trained on shapes for 7 epochs: top-1 87.50% on its test." in text


def test_a_run_becomes_a_repository(capsys, run, tmp_path, monkeypatch):
    asked = []

    class Api:
        def __init__(self, library_name):
            pass

        def create_repo(self, name, *, private, exist_ok):
            asked.append((name, private, exist_ok))
            return SimpleNamespace(repo_id=name)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / "there")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert main(["push", "hf://me/shapes", "--run", str(run[0]), "--private"]) == 0
    assert "is at hf://me/shapes: timm.create_model('hf-hub:me/shapes', pretrained=True)" in capsys.readouterr().out
    assert asked == [("me/shapes", True, True)]
    assert load_file(tmp_path / "there" / "model.safetensors")["classifier.bias"].shape == (3,)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("hf://me/shapes", "--run"), "cannot push to hf://me/shapes: "),
        (("out", "--model", "resnet50.tv9_in1k"), "unknown weights 'resnet50.tv9_in1k'; did you mean resnet50.tv_in1k"),
        (("out",), "one of the arguments --model --run is required"),
    ],
)
def test_what_fails_is_told_in_a_line(capsys, run, monkeypatch, argv, line):
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    argv = [*argv, str(run[0])] if argv[-1] == "--run" else argv
    assert main(["push", *argv]) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


def refuse(*args, **kwargs):
    raise ConnectionError("nobody answers\nand more")


def test_weights_in_a_file_become_a_folder(small_weights, tmp_path, capsys):
    assert main(["push", str(tmp_path), "--model", "resnet20_cifar", "--weights", str(small_weights[0])]) == 2
    assert "timm has no resnet20_cifar, and this is its format" in capsys.readouterr().err
