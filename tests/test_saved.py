import json
import os
import subprocess
from dataclasses import replace

import jax
import numpy as np
import pytest

from cnn_jax import UserError, create_model, load_pretrained, model_info, save_pretrained, weight_card
from cnn_jax.models.structure import structure
from cnn_jax.weights import network_card


def drawn(name, num_classes=3, channels=3):
    """Variables of the network, for some classes and channels, whose activations neither vanish nor explode."""
    rng = np.random.default_rng(0)
    height, width, _ = model_info(name).input_size

    def draw(path, leaf):
        value = rng.standard_normal(leaf.shape, np.float32)
        if path[-1].key == "kernel":
            return value * np.sqrt(2 / np.prod(leaf.shape[:-1]), dtype=np.float32)
        return 0.1 * value + (path[-1].key in ("scale", "var"))

    shapes = structure(create_model(name, num_classes=num_classes), (height, width, channels)).variables
    return jax.tree_util.tree_map_with_path(draw, shapes)


def test_what_is_saved_loads_again(tmp_path):
    variables, card = drawn("resnet18"), weight_card("resnet18.a1_in1k")
    save_pretrained(tmp_path / "new" / "run", "resnet18", variables, card=card, classes="abc", facts=["Of top-1 5 %."])
    model, again = load_pretrained(str(tmp_path / "new" / "run"))
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    found = weight_card(str(tmp_path / "new" / "run"))
    assert (model.num_classes, found.classes, found.license) == (3, ("a", "b", "c"), "apache-2.0")
    for field in ("input_size", "resize", "interpolation", "mean", "std"):
        assert getattr(found, field) == getattr(card, field)
    text = (tmp_path / "new" / "run" / "README.md").read_text()
    assert "license: apache-2.0\n---\n# resnet18\n" in text and "\n\nOf top-1 5 %.\n\n```" in text
    assert sorted(path.name for path in (tmp_path / "new" / "run").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip


def test_grey_images_and_a_size_of_ones_own_are_said(tmp_path):
    card = network_card("mobilenetv3_small_050", 96, 1)
    save_pretrained(tmp_path, "mobilenetv3_small_050", drawn("mobilenetv3_small_050", channels=1), card=card)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_args"] == {"in_chans": 1} and config["pretrained_cfg"]["input_size"] == [1, 96, 96]
    where = {"tag": str(tmp_path), "reference": "timm.mobilenetv3_small_050", "path": tmp_path / "model.safetensors"}
    assert weight_card(str(tmp_path)) == replace(card, num_classes=3, **where)


def test_timm_rounds_the_crop_to_the_same_resize():
    for size in (32, 176, 224, 299, 331):
        for resize in range(size, 2 * size):
            assert int(size / replace(network_card("resnet18", size), resize=resize).crop) == resize


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(UserError, match="timm has no lenet5_modern, and this is its format"):
        save_pretrained(tmp_path, "lenet5_modern", drawn("lenet5_modern"))
    with pytest.raises(UserError, match="these are not variables of resnet18"):
        save_pretrained(tmp_path, "resnet18", drawn("resnetv2_18"))
    with pytest.raises(UserError, match="these are 2 names, and resnet18 tells 3 classes apart"):
        save_pretrained(tmp_path, "resnet18", drawn("resnet18"), classes="ab")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to .*file: File exists"):
        save_pretrained(tmp_path / "file", "resnet18", drawn("resnet18"))


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (None, "has no config.json that says which network"),
        ("[1]", "is no configuration of timm's: "),
        ("{}", "is no configuration of timm's: 'architecture'"),
        ('{"architecture": ["x"]}', "is no configuration of timm's: "),
        ('{"architecture": "resnet18", "input_size": 3}', "is no configuration of timm's: "),
        (
            '{"architecture": "resnet18", "crop_mode": "squash"}',
            "wants crop_mode 'squash'; known here: center",
        ),
        ('{"architecture": "resnet18", "interpolation": "lanczos"}', "'lanczos'; known here: bilinear, bicubic"),
    ],
)
def test_a_folder_without_a_configuration_is_told(tmp_path, config, line):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=line):
        weight_card(str(tmp_path))


def test_another_architecture_is_told_with_near_names(tmp_path):
    save_pretrained(tmp_path, "resnet18", drawn("resnet18"))
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"resnet18"', '"resnet19"'))
    with pytest.raises(UserError, match="unknown architecture 'resnet19'; did you mean resnet18"):
        weight_card(str(tmp_path))


def test_an_old_configuration_has_one_level(tmp_path):
    save_pretrained(tmp_path, "resnet18", drawn("resnet18"))
    config = json.loads((tmp_path / "config.json").read_text())
    new = weight_card(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config | config.pop("pretrained_cfg")))
    assert weight_card(str(tmp_path)) == new


def test_what_a_configuration_does_not_say_is_as_in_timm(tmp_path):
    """timm 1.0.31: PretrainedCfg's defaults, and what it advises for tests."""
    (tmp_path / "config.json").write_text('{"architecture": "resnet50"}')
    card = weight_card(str(tmp_path))
    assert (card.input_size, card.resize, card.interpolation, card.num_classes) == ((224, 224, 3), 256, "bicubic", 1000)
    published = weight_card("resnet50.a1_in1k")
    tested = {"crop_pct": 0.95, "test_input_size": [3, 288, 288], "test_crop_pct": 1.0, "license": "apache-2.0"}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet50", "pretrained_cfg": tested}))
    for field in ("input_size", "resize", "test_size", "test_resize", "mean", "std", "license", "interpolation"):
        assert getattr(weight_card(str(tmp_path)), field) == getattr(published, field)


TIMM = """
import sys, numpy as np, timm, torch
model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
about = timm.data.resolve_model_data_config(model)
with torch.no_grad():
    given = torch.tensor(np.load(sys.argv[1] + "/images.npy")).permute(0, 3, 1, 2)
    np.save(sys.argv[1] + "/logits.npy", model(given).numpy())
print(*about["input_size"], about["interpolation"], about["crop_pct"], *about["mean"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["resnet18", "vgg11", "inception_v3", "densenet121", "dpn68b", "resnetv2_18", "legacy_seresnet18", "xception41",
     "mobilenetv1_100", "semnasnet_075", "mobilenetv3_small_050", "nasnetalarge", "inception_resnet_v2"],
)  # fmt: skip
@pytest.mark.parametrize("channels", [3, 1])
def test_timm_reads_what_is_saved(tmp_path, name, channels):
    """OTHER_PYTHON names a Python that has timm."""
    if (python := os.environ.get("OTHER_PYTHON")) is None:
        pytest.skip("OTHER_PYTHON is not set")
    variables, card = drawn(name, channels=channels), network_card(name, channels=channels)
    save_pretrained(tmp_path, name, variables)
    images = np.random.default_rng(1).standard_normal((2, *card.input_size), np.float32)
    np.save(tmp_path / "images.npy", images)
    said = subprocess.run([python, "-c", TIMM, tmp_path], capture_output=True, text=True, check=True).stdout.split()
    model = create_model(name, num_classes=3)
    logits = jax.jit(lambda values, x: model.apply(values, x, train=False))(variables, images)
    theirs = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(logits, theirs, atol=1e-4 * abs(theirs).max())  # float32; a wrong place gives 1
    size = card.input_size[0]
    assert said[:4] == [str(channels), str(size), str(size), card.interpolation]
    assert int(size / float(said[4])) == card.resize and tuple(map(float, said[5:])) == card.mean
