import dataclasses
import json

import pytest

from cnn_jax import RECIPES, UserError
from cnn_jax.recipes import Optimizer, Schedule
from cnn_jax.recipes.configuration import differences, flatten, override, read_json, to_json
from cnn_jax.recipes.recipe import ModelOptions


def test_differences_name_each_field():
    old = to_json("a", RECIPES["lenet5_modern"])
    new = to_json("a", dataclasses.replace(RECIPES["lenet5_modern"], epochs=3, schedule=Schedule(warmup=2)))
    assert differences(old, new) == ["epochs: 20 -> 3", "schedule.warmup: 1 -> 2"]
    assert differences(old, old) == []
    assert differences({"a": 1}, {}) == ["a: 1 -> -"]


def test_a_run_from_before_a_value_was_there_had_its_default():
    old = to_json("a", RECIPES["lenet5_modern"])
    new = old | {"deterministic": True}
    del old["deterministic"], old["optimizer"]["clip"]
    assert differences(old, new) == ["deterministic: False -> True"]


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


def test_lists_of_numbers_and_of_names_are_read_back():
    config = dataclasses.replace(
        RECIPES["lenet5_modern"],
        remat=("stage1*", "head"),
        start_layers=(),
        model_options=ModelOptions(se_reduction=16, batch_norm={"frozen": ["stem*"]}),
        optimizer=Optimizer(betas=(0.8, 0.9), epsilon=0.5),
        schedule=Schedule(kind="step", boundaries=(1.5, 2.0)),
    )
    written = json.loads(json.dumps(to_json("lenet5_modern", config)))
    del written["recipe"]
    assert override(RECIPES["lenet5_modern"], written) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"remat": "stage1"}, 'remat must be a list of text, not "stage1"'),
        ({"remat": [1]}, "remat must be text, not 1"),
        ({"optimizer": {"betas": 0.9}}, "optimizer.betas must be a list of numbers, not 0.9"),
        ({"optimizer": {"betas": ["0.9"]}}, 'optimizer.betas must be a number, not "0.9"'),
        ({"optimizer": {"lr_per": 2.5}}, "optimizer.lr_per must be a whole number, not 2.5"),
    ],
)
def test_a_list_of_the_wrong_kind_is_told(values, message):
    with pytest.raises(UserError) as error:
        override(RECIPES["lenet5_modern"], values)
    assert str(error.value) == message
