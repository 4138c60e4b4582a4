import errno
import json
import os

import jax
import pytest
from tiny_states import assert_equal, state_at

from cnn_jax import RECIPES, UserError
from cnn_jax.data.order import Timeline
from cnn_jax.recipes.configuration import to_json
from cnn_jax.training import run_folder
from cnn_jax.training.program import Program
from cnn_jax.training.run_folder import RunFolder, new_folder, versions


def go_on(out, config, **options):
    """Opens, begins to write and leaves."""
    with RunFolder(out, config, **options) as folder:
        begin(folder)
    return folder.resumed


def begin(folder, tested="test"):
    program = Program(RECIPES["lenet5_modern"], Timeline(size=100, batch_size=10, epochs=2), classes=10, channels=1)
    folder.begin(program, state_at(0), tested)


CONFIG = to_json("lenet5_modern", RECIPES["lenet5_modern"])


def test_a_new_run_writes_its_configuration(tmp_path):
    go_on(tmp_path / "a" / "b", CONFIG, resume="no")
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == CONFIG


def test_a_second_run_does_not_overwrite_the_first(tmp_path):
    go_on(tmp_path, CONFIG, resume="no")
    with pytest.raises(UserError, match="already holds a run: continue it with --resume, or choose another --out"):
        go_on(tmp_path, CONFIG, resume="no")


def test_resume_accepts_the_same_configuration_and_names_what_changed(tmp_path):
    go_on(tmp_path, CONFIG, resume="no")
    go_on(tmp_path, CONFIG, resume="yes")
    told = "has another configuration: epochs: 20 -> 3; model: lenet5_modern -> lenet5; --allow-change goes on so"
    with pytest.raises(UserError, match=told):
        go_on(tmp_path, CONFIG | {"epochs": 3, "model": "lenet5"}, resume="yes")


def test_a_change_that_is_allowed_is_told_and_written_down(tmp_path, capsys):
    go_on(tmp_path, CONFIG, resume="no")
    go_on(tmp_path, CONFIG | {"epochs": 3}, resume="yes", allow_change=True)
    assert f"{tmp_path}: goes on with epochs: 20 -> 3\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 3


def test_auto_begins_a_run_and_then_goes_on_with_it(tmp_path):
    assert [go_on(tmp_path / "run", CONFIG, resume="auto") for _ in range(3)] == [False, True, True]
    with pytest.raises(UserError, match="another configuration: epochs: 20 -> 3"):
        go_on(tmp_path / "run", CONFIG | {"epochs": 3}, resume="auto")


def test_auto_takes_no_leftovers_for_a_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="already holds a run"):
        go_on(tmp_path, CONFIG, resume="auto")


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl"])
def test_leftovers_of_a_run_are_not_taken_over(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="already holds a run"):
        go_on(tmp_path, CONFIG, resume="no")


def test_other_files_do_no_harm(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    go_on(tmp_path, CONFIG, resume="no")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_data_may_lie_elsewhere_on_resume(tmp_path):
    go_on(tmp_path, CONFIG, resume="no")
    go_on(tmp_path, CONFIG | {"data_dir": "/moved"}, resume="yes")


def test_two_processes_do_not_work_on_one_run(tmp_path):
    with (
        RunFolder(tmp_path, CONFIG, resume="no"),
        pytest.raises(UserError, match="another process is at work in"),
    ):
        go_on(tmp_path, CONFIG, resume="yes")
    go_on(tmp_path, CONFIG, resume="yes")


def test_a_file_system_without_locks_is_told_and_written_to(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_folder.fcntl, "flock", no_locks)
    with RunFolder(tmp_path / "run", {"epochs": 1}):
        pass
    assert capsys.readouterr().err == (
        f"{tmp_path / 'run'}: nothing here keeps a second process from writing, too (No locks available)\n"
    )


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(UserError, match="cannot read .*config.json: No such file"):
        go_on(tmp_path, CONFIG, resume="yes")


def test_an_unwritable_place_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --out .*: Not a directory"):
        go_on(tmp_path / "file" / "run", CONFIG, resume="no")


def test_new_folders_count_up(tmp_path):
    assert [new_folder(tmp_path / "runs", "run").name for _ in range(3)] == ["run", "run-2", "run-3"]


def test_a_place_for_runs_that_is_none_is_told(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot make .*run: Not a directory; --out DIR names another place"):
        new_folder(tmp_path / "runs" / "of", "run")


def test_versions_name_the_stack():
    assert {"cnn-jax", "jax", "flax", "optax", "orbax-checkpoint"} <= set(versions())


def test_another_batch_size_is_told_and_written_down(tmp_path, capsys):
    go_on(tmp_path, CONFIG, resume="no")
    go_on(tmp_path, CONFIG | {"batch_size": 128}, resume="yes")
    assert f"{tmp_path}: goes on with batch_size: 64 -> 128\n" in capsys.readouterr().out
    go_on(tmp_path, CONFIG | {"batch_size": 128}, resume="yes")
    assert "goes on" not in capsys.readouterr().out
    with RunFolder(tmp_path, CONFIG, resume="yes"):
        pass  # a resume that did not get as far as its first step
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 128


def test_a_run_goes_on_from_its_newest_checkpoint_and_a_new_one_as_it_is(tmp_path):
    state = state_at(0)
    described = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)

    def never():
        raise AssertionError("a run that goes on makes no first state")

    with RunFolder(tmp_path, CONFIG) as folder:
        assert folder.restore(described, lambda: state) is state
        for step in (3, 7):
            folder.save(state_at(step))
    with RunFolder(tmp_path, CONFIG, resume="yes") as folder:
        assert folder.resumed
        assert_equal(folder.restore(described, never), state_at(7))


def test_the_result_of_another_kind_of_test_is_not_taken_over(tmp_path):
    """The run went on with a validation share, or without one."""
    found = {"test_top1": 0.5, "test_loss": 1.0}
    with RunFolder(tmp_path, CONFIG) as folder:
        begin(folder)
        folder.save(state_at(3))
        assert folder.tested(3) is None
        folder.note(3, found)
        assert folder.tested(3) == found
    with RunFolder(tmp_path, CONFIG, resume="yes") as folder:
        begin(folder, "validation")
        assert folder.tested(3) is None


def test_a_run_is_complete_when_all_else_is_there(tmp_path, capsys):
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.finish({"test_top1": 0.5}, lambda out, summary: f"{out}: {summary}, {folder.is_complete()}")
        assert folder.is_complete()
    assert capsys.readouterr().out == f"{tmp_path}: {{'test_top1': 0.5}}, False\n"
    assert json.loads((tmp_path / "summary.json").read_text()) == {"test_top1": 0.5}
