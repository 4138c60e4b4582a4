"""`cnn-jax visualize` on a network with drawn weights and on a run."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnn_jax import UserError
from cnn_jax.cli import main
from cnn_jax.commands.visualize import METHODS, WITHOUT_PHOTO, class_number
from cnn_jax.data.mnist_5k import read_split

RNG = np.random.default_rng(0)


def run(capsys, *argv):
    code = main(["visualize", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def is_a_picture(path):
    pixels = np.asarray(Image.open(path).convert("L"))
    return pixels.shape[0] > 200 and pixels.std() > 5


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    """A test image of a seven."""
    images, labels = read_split("test")
    path = tmp_path_factory.mktemp("digit") / "seven.png"
    Image.fromarray(images[labels == 7][0, :, :, 0]).save(path)
    return path


QUICK = ("gradcam", "saliency", "deconvnet", "features")


@pytest.mark.parametrize(
    "method",
    [
        method if method in QUICK else pytest.param(method, marks=pytest.mark.slow)
        for method in METHODS
        if method not in WITHOUT_PHOTO
    ],
)
def test_every_method_draws_what_a_run_sees_in_a_photograph(capsys, whole, digit, tmp_path, method, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, method, digit, "--model", whole[0])
    assert (code, err) == (0, ""), err
    assert out.startswith(f"{method}: ") and out.endswith(f"; {method}-seven.png\n")
    assert is_a_picture(tmp_path / f"{method}-seven.png")
    where = {
        "gradcam": " in s4",
        "features": "the 16 strongest of 16 channels of s4",
        "deconvnet": "the 9 strongest of 16",
    }
    assert where.get(method, "7, ") in out


def test_target_layer_channel_and_score_are_heard(capsys, whole, digit, tmp_path):
    out = tmp_path / "a.png"
    code, told, _ = run(
        capsys, "gradcam", digit, "--model", whole[0], "--target", "3", "--layer", "c3", "--score", "--out", out
    )
    assert code == 0 and told.startswith("gradcam: 3, ") and " in c3, deletion 0." in told and ", insertion 0." in told
    code, told, _ = run(capsys, "deconvnet", digit, "--model", whole[0], "--layer", "f6", "--channel", 5, "--out", out)
    assert (code, told) == (0, f"deconvnet: channel 5 of f6; {out}\n")


def test_what_needs_no_photograph(capsys, whole, small_weights, tmp_path):
    out = tmp_path / "a.png"
    assert run(capsys, "filters", "--model", whole[0], "--out", out) == (0, f"filters: 6 filters of 5x5; {out}\n", "")
    assert is_a_picture(out)
    given = ("--model", "resnet20_cifar", "--weights", small_weights[0], "--out", out)
    assert run(capsys, "filters", *given)[1] == f"filters: 16 filters of 3x3; {out}\n"
    code, told, _ = run(capsys, "activation_maximization", "--model", whole[0], "--target", 4, "--out", out)
    assert (code, told) == (0, f"activation_maximization: for 4; {out}\n") and is_a_picture(out)


def test_a_class_goes_by_its_name_or_number():
    classes = ("tench", "Crane", "tabby", "crane", "7")
    assert [class_number(name, classes, 5) for name in ("tabby", "TENCH", "3", "7")] == [2, 0, 3, 4]
    assert class_number("4", None, 5) == 4
    for target, known, line in (
        ("crane", classes, "2 classes are called 'crane'; say which: 1, 3"),
        ("taby", classes, "unknown class 'taby'; did you mean tabby"),
        ("5", classes, "the network's classes are 0 to 4, not '5'"),
        ("tabby", None, "the network's classes are 0 to 4, not 'tabby'"),
    ):
        with pytest.raises(UserError, match=line):
            class_number(target, known, 5)


def test_mistakes_are_one_line_and_exit_code_2(capsys, whole, digit, tmp_path, monkeypatch):
    given = ("--model", whole[0])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    for argv, line in (
        (("gradcamm", digit, *given), "unknown method 'gradcamm'; did you mean gradcam"),
        (("gradcam", *given), "gradcam takes a photograph: cnn-jax visualize METHOD PHOTO --model NAME"),
        (("filters", digit, *given), "filters takes no photograph"),
        (("gradcam", digit), "required: --model"),
        (("gradcam", digit, "--model", "resnet50"), "resnet50 is a network without weights"),
        (("gradcam", tmp_path / "none.png", *given), "there is no file"),
        (("gradcam", tmp_path / "broken.png", *given), "broken.png is"),
        (("gradcam", digit, *given, "--target", "ten"), "unknown class 'ten'"),
        (("gradcam", digit, *given, "--layer", "c4"), "unknown feature 'c4'; there are: c1, c3"),
        (("gradcam", digit, *given, "--layer", "f6"), "gives vectors"),
        (("features", digit, *given, "--layer", "f6"), "gives vectors"),
        (("deconvnet", digit, *given, "--layer", "c3", "--channel", "16"), "c3 has channels 0 to 15, not 16"),
        (("saliency", digit, *given, "--layer", "c3"), "saliency takes no --layer"),
        (("features", digit, *given, "--score"), "features takes no --score"),
        (("activation_maximization", *given), "takes --target CLASS, or --layer NAME and --channel NUMBER"),
        (("filters", *given, "--out", "a.jpg"), "the name of a picture, such as a.png"),
    ):
        code, out, err = run(capsys, *argv)
        assert (code, out) == (2, ""), argv
        assert err.startswith("cnn-jax: ") and line in err and err.count("\n") == 1, err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install matplotlib" in run(capsys, "filters", *given)[2]


def test_help_needs_no_jax():
    script = (
        "import atexit, sys, cnn_jax.cli\n"
        "atexit.register(lambda: print('jax' in sys.modules))\n"
        "cnn_jax.cli.main(['visualize', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "integrated_gradients" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
