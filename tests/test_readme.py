import re

from conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_code_of_the_readme_runs_and_gives_what_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["cnn_jax"].list_models("lenet*") == ["lenet5", "lenet5_modern"]
    assert names["logits"].shape == (8, 10)
    assert names["features"]["stage3"].shape == (8, 8, 8, 256)
    assert names["batch_stats"].keys() == names["moved"]["batch_stats"].keys()


def test_every_file_that_the_readme_shows_is_there():
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).is_file(), path
