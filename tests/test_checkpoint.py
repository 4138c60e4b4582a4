import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import UserError
from cnn_jax.training.checkpoint import Checkpoints, load_variables
from cnn_jax.training.state import TrainState


def state_at(step: int, width: int = 3, momentum: float | None = 0.9) -> TrainState:
    variables = {
        "params": {"head": {"kernel": jnp.full((2, width), float(step))}},
        "batch_stats": {"norm": {"mean": jnp.arange(4.0) + step}},
    }
    state = TrainState.create(variables, optax.sgd(0.1, momentum), jax.random.key(step))
    return state.replace(step=jnp.int32(step))


def with_key_data(state):
    return state.replace(key=jax.random.key_data(state.key))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def save(folder, *steps, **options):
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(state_at(step, **options), {"test_top1": 0.5})


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_whole_state_comes_back_bit_for_bit(folder):
    save(folder, 7)
    with Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore(state_at(0), 7)
    chex.assert_trees_all_equal(with_key_data(state_at(7)), with_key_data(restored))


def test_the_best_and_the_newest_are_kept(folder):
    with Checkpoints(folder) as checkpoints:
        for step, top1 in ((1, 0.5), (2, 0.9), (3, 0.8), (4, 0.7)):
            checkpoints.save(state_at(step), {"test_top1": top1})
        checkpoints.save(state_at(5))  # as a signal does, untested
        checkpoints.wait()
        assert steps_in(folder) == [2, 5]
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (5, 2)
    assert sorted(path.name for path in folder.iterdir()) == ["2", "5"]


def test_an_empty_folder_has_no_steps(folder):
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.best_step() is None


def test_a_step_that_orbax_does_not_save_is_told(folder):
    save(folder, 7)
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match="holds step 7 already; step 3 is not sav"):
        checkpoints.save(state_at(3))


def test_a_half_written_checkpoint_is_never_chosen(folder):
    save(folder, 3)
    half = folder / "9.orbax-checkpoint-tmp"
    shutil.copytree(folder / "3", half)
    (half / "commit_success.txt").unlink()  # what orbax writes last
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 3
        checkpoints.save(state_at(9))  # the same step, now whole
    assert sorted(path.name for path in folder.iterdir()) == ["3", "9"]  # the best and the newest


def test_another_models_checkpoint_is_named_by_its_first_difference(folder):
    save(folder, 3, width=5)
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore(state_at(0), 3)
    assert "3 is of another model or optimiser: " in str(error.value)
    assert "head/kernel is (2, 5) there, (2, 3) here" in str(error.value) and "\n" not in str(error.value)


def test_another_optimisers_checkpoint_is_refused(folder):
    save(folder, 3, momentum=None)
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match="absent there"):
        checkpoints.restore(state_at(0), 3)


def files_of_a_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pattern") / "checkpoints"
    save(folder, 3)
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_a_damaged_checkpoint_is_told_in_one_line(folder, tmp_path_factory):
    """Each of its files emptied in turn: either the state still comes back whole, or one line tells."""
    told = whole = 0
    files = files_of_a_checkpoint(tmp_path_factory)
    for file in files:
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, 3)
        matching = sorted((folder / file.parent).glob("*")) if not (folder / file).exists() else [folder / file]
        next(path for path in matching if path.is_file()).write_bytes(b"")
        try:
            with Checkpoints(folder) as checkpoints:
                state = checkpoints.restore(state_at(0), checkpoints.latest_step())
        except UserError as error:
            lines = str(error).splitlines()
            told += len(lines) == 1 and str(folder) in lines[0]
        else:
            chex.assert_trees_all_equal(with_key_data(state_at(3)), with_key_data(state))
            whole += 1
    assert told + whole == len(files)
    assert told > len(files) / 3


def test_a_gutted_checkpoint_is_told_in_one_line(folder):
    save(folder, 3)
    shutil.rmtree(folder / "3" / "default")
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match="3 cannot be read") as error:
        checkpoints.restore(state_at(0), 3)
    assert "\n" not in str(error.value)


def test_a_file_in_place_of_the_folder_is_told(folder):
    folder.write_text("")
    with pytest.raises(UserError, match="checkpoints cannot be opened"):
        Checkpoints(folder)


def test_variables_of_a_run_are_loaded_without_its_state(folder):
    with Checkpoints(folder) as checkpoints:
        for step, top1 in ((1, 0.5), (2, 0.9), (3, 0.8)):
            checkpoints.save(state_at(step), {"test_top1": top1})
    for which, step in (("best", 2), ("latest", 3)):
        variables = load_variables(folder.parent, which)
        chex.assert_trees_all_equal(variables, state_at(step).variables)
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))


def test_a_damaged_run_is_told(folder):
    save(folder, 3)
    shutil.rmtree(folder / "3" / "default")
    with pytest.raises(UserError, match="cannot read a checkpoint in .*checkpoints: "):
        load_variables(folder.parent)


def test_a_run_that_was_never_tested_gives_its_latest(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state_at(4))
    chex.assert_trees_all_equal(load_variables(folder.parent), state_at(4).variables)


def test_a_folder_without_checkpoints_is_told(folder):
    with pytest.raises(UserError, match="checkpoints holds no checkpoint yet"):
        load_variables(folder.parent)
    save(folder)
    with pytest.raises(UserError, match="checkpoints holds no checkpoint yet"):
        load_variables(folder.parent)
