"""CONTRIBUTING.md: what it says of names holds."""

import re
from pathlib import Path

from flax.traverse_util import flatten_dict

from cnn_jax.models import model_info

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"\| [^|]+ \| (\w+): `([\w/]+)` \| `([\w/.]+)`: `(.+?)` \|")


def test_the_ten_layers_stand_where_the_page_says():
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text())
    assert len(rows) == 10
    for name, parameter, file, code in rows:
        assert ("params", *parameter.split("/")) in flatten_dict(model_info(name).structure.variables), parameter
        lines = [line for line in (ROOT / file).read_text().splitlines() if code in line]
        assert 1 <= len(lines) <= 2, (file, code)  # two where two blocks have such a layer
