"""Networks as files: read again by others, or not written."""

import json
import re
import shutil
import subprocess
import sys
from functools import partial

import jax
import jax.export
import numpy as np
import pytest
from conftest import ROOT
from flax.traverse_util import flatten_dict
from quick_jit import quick_jit
from safetensors.numpy import load_file
from test_models import SMALL, small

from cnn_jax import UserError, create_model, export_network, export_state_dict, load_variables, model_info
from cnn_jax.cli import main
from cnn_jax.models.structure import structure
from cnn_jax.preprocessing import preprocess

CODE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)


def export(name, folder, format="stablehlo", **options):
    """A small network of ten classes, for images of 32 pixels, with random weights: model, variables, images."""
    model, variables, images = small(name)
    said = export_network(name, model, variables, folder, format, seen=preprocess(name, image_size=32), **options)
    assert said.startswith(f"{folder}: ")
    return model, variables, images


def zeros(name, **options):
    """A network with variables that are zeros."""
    model = create_model(name, **options)
    shapes = structure(model, model_info(name).input_size).variables
    return model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


QUICK = ("lenet5", "vgg11_bn", "mobilenet_025", "resnet20_cifar")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_a_program_read_again_gives_the_logits_of_the_network(name, tmp_path):
    model, variables, images = export(name, tmp_path)
    program = jax.export.deserialize(bytearray((tmp_path / "network.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    both = quick_jit(lambda w, v, x: (program.call(w, x), model.apply(v, x, train=False)))
    found, expected = both(load_file(tmp_path / "weights.safetensors"), variables, images)
    assert found.shape == (4, 10) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_the_lines_of_the_docs_run_a_program_without_this_package(tmp_path):
    model, variables, _ = export("lenet5_modern", tmp_path / "exported", classes=list("0123456789"))
    code = f"import sys; sys.modules['cnn_jax'] = None\n{CODE[0]}\nprint(*logits[1].tolist())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    info = model_info("lenet5_modern")
    black = np.full((2, 32, 32, 1), -info.mean[0] / info.std[0], np.float32)
    expected = model.apply(variables, black, train=False)[1]
    np.testing.assert_allclose([float(word) for word in done.stdout.split()], expected, rtol=1e-4, atol=1e-5)
    facts = json.loads((tmp_path / "exported" / "network.json").read_text())
    assert facts == {
        "network": "lenet5_modern", "format": "stablehlo", "channels": 1, "size": [32, 32], "resize": 36,
        "interpolation": "bilinear", "mean": [0.1307], "std": [0.3081], "num_classes": 10, "classes": [*"0123456789"],
    }  # fmt: skip


def test_auxiliary_heads_and_batch_statistics_are_left_out(tmp_path):
    export_network("googlenet_bn", *zeros("googlenet_bn"), tmp_path)
    names = load_file(tmp_path / "weights.safetensors").keys()
    assert not [name for name in names if "aux" in name or "batch_stats" in name]
    assert "params/head/kernel" in names


def test_a_state_dict_is_the_one_of_export_state_dict(tmp_path):
    model, variables = zeros("resnet18", num_classes=7, stem="cifar")
    variables["params"]["head"]["bias"] = np.arange(7, dtype=np.float32)
    export_network("resnet18", model, variables, tmp_path, "safetensors")
    found = load_file(tmp_path / "model.safetensors")
    expected = export_state_dict("resnet18", variables, stem="cifar")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "network.json"]


def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path):
    lenet, file = zeros("lenet5_modern"), tmp_path / "file"
    write = partial(export_network, "lenet5_modern")
    with pytest.raises(UserError, match="unknown format 'onx'; did you mean onnx"):
        write(*lenet, tmp_path / "out", "onx")
    with pytest.raises(UserError, match="these are not variables of this lenet5_modern: .*head"):
        write(create_model("lenet5_modern", num_classes=3), lenet[1], tmp_path / "out")
    with pytest.raises(UserError, match="lenet5_modern has no published weights in another library's layout"):
        write(*lenet, tmp_path / "out", "safetensors")
    file.write_text("")
    with pytest.raises(UserError, match="cannot write to .*file"):
        write(*lenet, file)
    assert not any((tmp_path / "out").iterdir())


def uv(folder, monkeypatch, script):
    """Makes a Python script the only uv that is found."""
    path = folder / "uv"
    path.write_text(f"#!{sys.executable}\nimport pathlib, sys\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_a_converter_one_line_says_so(tmp_path, monkeypatch):
    write = partial(export_network, "lenet5_modern", *zeros("lenet5_modern"), tmp_path / "out", "onnx")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no uv: pip install uv"):
        write()
    uv(tmp_path, monkeypatch, "sys.exit('error: no address\\n\\n  hint: network')")
    with pytest.raises(UserError, match="no ONNX of lenet5_modern: hint: network"):
        write()
    assert not any((tmp_path / "out").iterdir())


def test_the_converter_gets_the_options_of_the_network(tmp_path, monkeypatch):
    script = """
pathlib.Path(sys.argv[-1]).write_text(pathlib.Path("job.json").read_text())
print("said")"""
    uv(tmp_path, monkeypatch, script)
    model, variables = zeros("resnet18", num_classes=3, stem="cifar", stochastic_depth=0.5)
    seen = preprocess("resnet18", image_size=32)
    said = export_network("resnet18", model, variables, tmp_path / "out", "onnx", seen=seen)
    assert said == f"{tmp_path / 'out'}: network.onnx, network.json; said"
    job = json.loads((tmp_path / "out" / "network.onnx").read_text())
    assert job["options"] == {"num_classes": 3, "stem": "cifar", "stochastic_depth": 0.5}
    assert (job["name"], job["image"], job["batches"]) == ("resnet18", [32, 32, 3], [1, 3])


@pytest.mark.slow
def test_onnxruntime_computes_a_network_or_the_file_is_not_written(tmp_path, monkeypatch):
    """By the package registry, or uv's cache."""
    model, variables, images = export("resnet50d", tmp_path / "right", "onnx")
    run = f"{CODE[1]}\nprint(logits.shape)".replace("224, 224", "32, 32").replace("exported", "right")
    packages = ["--with=onnxruntime==1.32.0"]
    command = ["uv", "run", "--quiet", "--isolated", "--no-project", *packages, "python", "-c", run]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout == "(2, 10)\n"
    script = f"""
import os, numpy, safetensors.numpy as files
check = files.load_file("check.safetensors")
files.save_file(check | {{"logits": check["logits"] * numpy.float32(1.001)}}, "check.safetensors")
os.execv({shutil.which("uv")!r}, ["uv", *sys.argv[1:]])"""
    uv(tmp_path, monkeypatch, script)
    with pytest.raises(UserError, match="its logits are off by .* of the largest, more than 1e-04"):
        export("resnet50d", tmp_path / "wrong", "onnx")
    assert not any((tmp_path / "wrong").iterdir())


def test_the_command_says_what_it_wrote_and_what_it_does_not_know(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "resnet50"]) == 2 and "is a network without weights" in capsys.readouterr().err
    assert main(["export", "resnet50.tv_in1kk"]) == 2 and "did you mean resnet50.tv_in1k" in capsys.readouterr().err
    model, variables = zeros("squeezenet1_1", num_classes=2)
    np.savez(tmp_path / "mine.npz", **export_state_dict("squeezenet1_1", variables))
    assert main(["export", "squeezenet1_1", "--weights", "mine.npz", "--image-size", "64"]) == 0
    assert capsys.readouterr().out.startswith("exported-squeezenet1_1: network.stablehlo, weights.safetensors")
    facts = json.loads((tmp_path / "exported-squeezenet1_1" / "network.json").read_text())
    assert facts["size"] == [64, 64] and facts["num_classes"] == 2


def test_a_run_is_exported_with_the_names_of_its_classes(whole, tmp_path, capsys):
    run, _ = whole
    assert main(["export", str(run), "--out", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "network.json").read_text())
    assert facts["classes"] == [*"0123456789"] and facts["channels"] == 1
    best = flatten_dict(load_variables(run), sep="/")
    for name, value in load_file(tmp_path / "weights.safetensors").items():
        np.testing.assert_array_equal(value, best[name], err_msg=name)
