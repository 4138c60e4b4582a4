"""docs/errata.md: the lines that it shows are there, and its counts are the networks'."""

import re
from pathlib import Path

from cnn_jax.models import model_info

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/errata.md").read_text()
ROW = re.compile(r"\| `([\w/.]+)`: ``(.+?)`` \|$", re.MULTILINE)


def test_each_statement_shows_a_line_of_code():
    rows = ROW.findall(PAGE)
    assert len(rows) == PAGE.count("\n| ") - 2 >= 10  # less the head and its rule
    for file, code in rows:
        assert code in (ROOT / file).read_text(), (file, code)


def test_its_counts_are_those_of_the_networks():
    vgg, alexnet = model_info("vgg16").params, model_info("alexnet").params
    assert f"{vgg / alexnet:.2f} times as many: {vgg / 1e6:.1f} M against {alexnet / 1e6:.1f} M" in PAGE
    assert f"{model_info('lenet5').params:,} that are trained" in PAGE
    assert f"the modern dense form has {model_info('lenet5_modern').params:,}" in PAGE
