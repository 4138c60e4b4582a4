import re

import pytest
from conftest import ROOT

from cnn_jax import list_models

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_code_of_a_page_runs_and_gives_what_it_says(page):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    assert names["logits"].shape == (8, 10)
    if page == "README.md":
        assert [f.shape[1] for f in names["features"].values()] == [32, 16, 8, 4]
        return
    assert names["cnn_jax"].list_models("lenet*") == ["lenet1", "lenet5", "lenet5_modern"]
    assert names["features"]["stage3"].shape == (8, 8, 8, 256)
    assert names["batch_stats"].keys() == names["moved"]["batch_stats"].keys()


def test_the_readme_is_short_and_counts_right():
    assert README.count("\n") < 150 and f"all {len(list_models())} networks" in README


def test_every_file_that_the_readme_shows_is_there():
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).is_file(), path
