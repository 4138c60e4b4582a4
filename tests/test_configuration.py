import dataclasses
import json

import pytest

from cnn_jax import RECIPES, UserError
from cnn_jax.recipes import Schedule
from cnn_jax.recipes.configuration import differences, flatten, read_json, to_json


def test_differences_name_each_field():
    old = to_json("a", RECIPES["lenet5_modern"])
    new = to_json("a", dataclasses.replace(RECIPES["lenet5_modern"], epochs=3, schedule=Schedule(warmup=2)))
    assert differences(old, new) == ["epochs: 20 -> 3", "schedule.warmup: 1 -> 2"]
    assert differences(old, old) == []
    assert differences({"a": 1}, {}) == ["a: 1 -> -"]


def test_flatten_joins_names_by_dots():
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": [3]}}}) == {"a": 1, "b.c": 2, "b.d.e": [3]}


def test_what_is_written_can_be_read(tmp_path):
    written = to_json("lenet5_1998", RECIPES["lenet5_1998"])
    (tmp_path / "c.json").write_text(json.dumps(written))
    assert read_json(tmp_path / "c.json") == written
    assert written["recipe"] == "lenet5_1998"


def test_a_folder_is_no_json_file(tmp_path):
    with pytest.raises(UserError, match="cannot read .*: Is a directory"):
        read_json(tmp_path)


def test_bytes_that_are_no_text_are_told(tmp_path):
    (tmp_path / "c.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not JSON"):
        read_json(tmp_path / "c.json")
