"""Which network a command means, and what it sees."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from cnn_jax import export_state_dict, model_info, preprocess
from cnn_jax.commands import network
from cnn_jax.commands.network import open_network, open_run
from cnn_jax.data.imagenet import CLASSES
from cnn_jax.preprocessing import Preprocess
from cnn_jax.training.run_folder import DATASET


@pytest.fixture
def asked(monkeypatch):
    """The cards of weights that would have been loaded."""
    cards = []
    monkeypatch.setattr(network, "load_pretrained", lambda card: (cards.append(card), ("model", {}))[1])
    return cards


@pytest.mark.parametrize(("name", "weights"), [("resnet50.tv2_in1k", None), ("resnet50", "resnet50.tv2_in1k")])
def test_published_weights_bring_what_they_see_and_their_classes(asked, name, weights):
    found = open_network(name, weights)
    assert [card.tag for card in asked] == ["resnet50.tv2_in1k"]
    assert (found.name, found.source, found.num_classes) == ("resnet50", "resnet50.tv2_in1k", 1000)
    assert found.seen == preprocess("resnet50.tv2_in1k") and found.classes == CLASSES


def test_what_is_asked_for_takes_the_place_of_what_they_see(asked):
    usual = open_network("resnet50.a1_in1k", None).seen
    assert (usual.size, usual.resize) == ((224, 224), 235)
    assert open_network("resnet50.a1_in1k", None, as_tested=True).seen == replace(usual, size=(288, 288), resize=288)
    assert open_network("resnet50.a1_in1k", None, resize=256, interpolation="bilinear").seen == replace(
        usual, resize=256, interpolation="bilinear"
    )


def test_a_file_is_seen_by_the_name_that_is_given(small_weights):
    path, _ = small_weights
    own = open_network("resnet20_cifar", str(path))
    assert (own.name, own.source, own.num_classes, own.classes) == ("resnet20_cifar", str(path), 4, None)
    assert own.seen == preprocess("resnet20_cifar")
    assert open_network("resnet20_cifar.akamaster_cifar10", str(path)).seen == preprocess(
        "resnet20_cifar.akamaster_cifar10"
    )


def test_a_file_under_its_published_name_has_the_classes_of_those_weights(tmp_path):
    shapes = model_info("squeezenet1_1").structure.variables
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    for name, classes in (("squeezenet1_1-b8a52dc0.pth", CLASSES), ("mine.pth", None)):
        save_file(export_state_dict("squeezenet1_1", zeros), tmp_path / name)
        found = open_network("squeezenet1_1", str(tmp_path / name))
        assert (found.num_classes, found.classes, found.source) == (1000, classes, str(tmp_path / name))


def test_a_folder_in_timms_format_is_a_name_also_where_it_is_a_single_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"architecture": "resnet18", "num_classes": 2, "label_names": ["owl", "tit"]}
    about = {
        "input_size": [3, 64, 64],
        "crop_pct": 0.8,
        "interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "config.json").write_text(json.dumps(config | {"pretrained_cfg": about}))
    (tmp_path / "resnet18").mkdir()  # which hides no network
    monkeypatch.setattr(network, "load_pretrained", lambda card: ("model", {}))
    found = open_network("birds", None)
    assert (found.name, found.num_classes, found.classes) == ("resnet18", 2, ("owl", "tit"))
    assert found.seen == preprocess("birds") == Preprocess((64, 64), 80, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert preprocess("resnet18").resize == 256


def test_a_run_that_does_not_describe_its_data_set_asks_the_set_itself(whole, data_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    old = tmp_path / "run"
    shutil.copytree(whole[0], old, ignore=shutil.ignore_patterns(DATASET))
    (found, config), (wanted, _) = (open_run(folder, "best") for folder in (old, whole[0]))
    assert (found.seen, found.classes, config.model) == (wanted.seen, wanted.classes, "lenet5_modern")
    assert (found.seen.size, found.seen.resize) == ((32, 32), 28)
    (old / DATASET).write_text(
        json.dumps({"name": "photos", "classes": ["n01440764", "cat"], "shape": [None, None, 1]})
    )
    described, _ = open_run(old, "best")
    assert described.classes == ("tench", "cat") and described.seen == preprocess("lenet5_modern")
    assert open_run(old, "best", image_size=40, resize=44)[0].seen == replace(described.seen, size=(40, 40), resize=44)
