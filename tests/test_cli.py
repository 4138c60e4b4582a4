import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_jax import list_models, model_info
from cnn_jax.cli import main


def run(capsys, *argv):
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def test_list_has_a_line_for_each_match(capsys):
    code, out, _ = run(capsys, "list", "resnet1*")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list_models("resnet1*")
    assert "11.69" in next(line for line in out.splitlines() if line.startswith("resnet18 "))


def test_the_list_compares_by_one_protocol(capsys):
    lines = {line.split()[0]: line.split()[5] for line in run(capsys, "list")[1].splitlines()[1:]}
    assert lines["vgg16"] == "71.6"  # torchvision's and timm's centre crop; 74.4 is the paper's dense test
    assert lines["resnext101_32x8d"] == "82.8"  # torchvision's second weights; 84.3 is of a billion hashtags
    assert lines["lenet5"] == lines["inception_resnet_v1"] == "-"


def test_published_weights_are_listed(capsys):
    code, out, _ = run(capsys, "list", "resnet50", "--pretrained")
    lines = {line.split()[0]: line.split() for line in out.splitlines()}
    assert code == 0 and set(lines) == {"weights", *model_info("resnet50").weights}
    assert lines["resnet50.tv2_in1k"][1:6] == ["224", "232", "bilinear", "1,000", "80.9"]
    assert lines["resnet50.tv2_in1k"][6:] == ["bsd-3-clause", "hf://timm/resnet50.tv2_in1k"]


def test_info_shows_the_card(capsys):
    code, out, _ = run(capsys, "info", "resnet50")
    assert code == 0
    for text in ("25,557,032", "4,089,184,256", "torchvision.resnet50, timm.resnet50", "1512.03385", "stride 32"):
        assert text in out
    assert max(line.find("25,557,032") for line in out.splitlines()) < 30  # beside its label


def test_info_says_what_an_alias_stands_for(capsys):
    assert "mobilenetv2_100, asked for as mobilenet_v2\n" in run(capsys, "info", "mobilenet_v2")[1]
    assert "also called           mobilenet_v2\n" in run(capsys, "info", "mobilenetv2_100")[1]


def test_summary_adds_up_to_the_card(capsys):
    code, out, _ = run(capsys, "summary", "resnet18", "--batch", "2")
    assert code == 0
    total = next(line.split() for line in out.splitlines() if line.startswith("total"))
    assert total == ["total", "11,689,512", "3,628.1"]  # two images
    assert "2x112x112x64" in out and "MiB" in out


def test_summary_takes_another_size_and_stem(capsys):
    code, out, _ = run(capsys, "summary", "resnet18", "--image-size", "32", "--stem", "cifar")
    assert code == 0
    assert "1x32x32x64" in out


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("info", "resnet5"), "unknown model 'resnet5'; did you mean resnet50"),
        (("list", "nothing*"), "no model matches 'nothing*'"),
        (("list", "lenet*", "--pretrained"), "no published weights match 'lenet*'"),
        (("summary", "resnet18", "--image-size", "0"), "must be a positive whole number, not '0'"),
        (("summary", "resnet18", "--stem", "cfar"), "unknown stem 'cfar'; did you mean cifar?"),
        (("summary", "inception_v3", "--image-size", "20"), "of at least 75x75 pixels, not (1, 20, 20, 3)"),
        (("list", "res*", "--markdown"), "leave out the pattern"),
        (("summary", "resnet18", "--image-size", "²"), "must be a positive whole number"),
        (("info", "resnet18", "a\nb"), "unrecognized arguments: a b"),
        (("fly",), "invalid choice: 'fly'"),
        (("completion", "fish"), "invalid choice: 'fish'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, argv, line):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("cnn-jax: ") and line in err and err.count("\n") == 1


def test_help_needs_no_jax():
    code = "import sys, cnn_jax.cli; cnn_jax.cli.main(['--help'])"
    script = f"import atexit, sys\natexit.register(lambda: print('jax' in sys.modules))\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False"
    assert "summary" in done.stdout


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m cnn_jax.cli list | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.startswith("name")


def test_every_card_can_be_shown(capsys):
    for name in list_models("lenet*"):
        assert run(capsys, "info", name)[0] == 0
        assert model_info(name).summary in run(capsys, "info", name)[1]


def test_without_arguments_it_says_what_to_try(capsys):
    code, out, err = run(capsys)
    assert (code, err) == (0, "") and len(re.findall(r"^  (cnn-jax|python) ", out, re.MULTILINE)) == 5
    offered = set(re.findall(r"^  cnn-jax (\w+)", out, re.MULTILINE))
    with pytest.raises(SystemExit):
        main(["--help"])
    assert offered <= set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE))


def test_bash_completes_commands():
    script = """
    eval "$(python -m cnn_jax.cli completion bash)"
    COMP_WORDS=(cnn-jax pre); COMP_CWORD=1
    $(complete -p cnn-jax | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
    echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.stdout.split() == ["predict", "prepare"], done.stderr
