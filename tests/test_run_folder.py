import json

import pytest

from cnn_jax import RECIPES, UserError
from cnn_jax.recipes.configuration import to_json
from cnn_jax.training import run_folder
from cnn_jax.training.run_folder import new_folder, versions, write_changes, write_json


def open_run_folder(out, config, **options):
    """Opens, goes on and leaves."""
    with run_folder.open_run_folder(out, config, **options) as (resumed, changes):
        write_changes(out, config, changes)
    return resumed


CONFIG = to_json("lenet5_modern", RECIPES["lenet5_modern"])


def test_a_new_run_writes_its_configuration(tmp_path):
    open_run_folder(tmp_path / "a" / "b", CONFIG, resume="no")
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == CONFIG


def test_a_second_run_does_not_overwrite_the_first(tmp_path):
    open_run_folder(tmp_path, CONFIG, resume="no")
    with pytest.raises(UserError, match="already holds a run: continue it with --resume, or choose another --out"):
        open_run_folder(tmp_path, CONFIG, resume="no")


def test_resume_accepts_the_same_configuration_and_names_what_changed(tmp_path):
    open_run_folder(tmp_path, CONFIG, resume="no")
    open_run_folder(tmp_path, CONFIG, resume="yes")
    told = "has another configuration: epochs: 20 -> 3; model: lenet5_modern -> lenet5; --allow-change goes on so"
    with pytest.raises(UserError, match=told):
        open_run_folder(tmp_path, CONFIG | {"epochs": 3, "model": "lenet5"}, resume="yes")


def test_a_change_that_is_allowed_is_told_and_written_down(tmp_path, capsys):
    open_run_folder(tmp_path, CONFIG, resume="no")
    open_run_folder(tmp_path, CONFIG | {"epochs": 3}, resume="yes", allow_change=True)
    assert capsys.readouterr().out == f"{tmp_path}: goes on with epochs: 20 -> 3\n"
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 3


def test_auto_begins_a_run_and_then_goes_on_with_it(tmp_path):
    assert [open_run_folder(tmp_path / "run", CONFIG, resume="auto") for _ in range(3)] == [False, True, True]
    with pytest.raises(UserError, match="another configuration: epochs: 20 -> 3"):
        open_run_folder(tmp_path / "run", CONFIG | {"epochs": 3}, resume="auto")


def test_auto_takes_no_leftovers_for_a_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="already holds a run"):
        open_run_folder(tmp_path, CONFIG, resume="auto")


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl"])
def test_leftovers_of_a_run_are_not_taken_over(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="already holds a run"):
        open_run_folder(tmp_path, CONFIG, resume="no")


def test_other_files_do_no_harm(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    open_run_folder(tmp_path, CONFIG, resume="no")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_data_may_lie_elsewhere_on_resume(tmp_path):
    open_run_folder(tmp_path, CONFIG, resume="no")
    open_run_folder(tmp_path, CONFIG | {"data_dir": "/moved"}, resume="yes")


def test_two_processes_do_not_work_on_one_run(tmp_path):
    with (
        run_folder.open_run_folder(tmp_path, CONFIG, resume="no"),
        pytest.raises(UserError, match="another process is at work in"),
    ):
        open_run_folder(tmp_path, CONFIG, resume="yes")
    open_run_folder(tmp_path, CONFIG, resume="yes")


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(UserError, match="cannot read .*config.json: No such file"):
        open_run_folder(tmp_path, CONFIG, resume="yes")


def test_an_unwritable_place_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --out .*: Not a directory"):
        open_run_folder(tmp_path / "file" / "run", CONFIG, resume="no")


def test_new_folders_count_up(tmp_path):
    assert [new_folder(tmp_path / "runs", "run").name for _ in range(3)] == ["run", "run-2", "run-3"]


def test_a_place_for_runs_that_is_none_is_told(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot make .*run: Not a directory; --out DIR names another place"):
        new_folder(tmp_path / "runs" / "of", "run")


def test_json_is_replaced_whole(tmp_path):
    write_json(tmp_path / "s.json", {"a": 1})
    write_json(tmp_path / "s.json", {"a": 2})
    assert json.loads((tmp_path / "s.json").read_text()) == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_versions_name_the_stack():
    assert {"cnn-jax", "jax", "flax", "optax", "orbax-checkpoint"} <= set(versions())


def test_another_batch_size_is_told_and_written_down(tmp_path, capsys):
    open_run_folder(tmp_path, CONFIG, resume="no")
    open_run_folder(tmp_path, CONFIG | {"batch_size": 128}, resume="yes")
    assert capsys.readouterr().out == f"{tmp_path}: goes on with batch_size: 64 -> 128\n"
    open_run_folder(tmp_path, CONFIG | {"batch_size": 128}, resume="yes")
    assert capsys.readouterr().out == ""
    with run_folder.open_run_folder(tmp_path, CONFIG, resume="yes"):
        pass  # a resume that did not get as far as its first step
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 128
