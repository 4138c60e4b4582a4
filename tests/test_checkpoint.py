import shutil

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from cnn_jax import UserError
from cnn_jax.training.checkpoint import Checkpoints
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


def test_the_whole_state_comes_back_bit_for_bit(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(state_at(7))
    checkpoints.close()
    restored = Checkpoints(folder).restore(state_at(0), 7)
    chex.assert_trees_all_equal(with_key_data(state_at(7)), with_key_data(restored))


def test_the_best_and_the_newest_are_kept(folder):
    checkpoints = Checkpoints(folder)
    for step, top1 in ((1, 0.5), (2, 0.9), (3, 0.8), (4, 0.7)):
        checkpoints.save(state_at(step), {"test_top1": top1})
    checkpoints.save(state_at(5))  # as a signal does, untested
    checkpoints.wait()
    assert sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) == [2, 5]
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (5, 2)
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "5"]


def test_an_empty_folder_has_no_steps(folder):
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest_step() is None and checkpoints.best_step() is None


def test_a_half_written_checkpoint_is_never_chosen(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(state_at(3))
    checkpoints.close()
    half = folder / "9.orbax-checkpoint-tmp"
    shutil.copytree(folder / "3", half)
    (half / "commit_success.txt").unlink()  # what orbax writes last
    again = Checkpoints(folder)
    assert again.latest_step() == 3
    again.save(state_at(9))  # the same step, now whole
    again.close()
    assert sorted(path.name for path in folder.iterdir()) == ["9"]


def test_another_models_checkpoint_is_named_by_its_first_difference(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(state_at(3, width=5))
    checkpoints.wait()
    with pytest.raises(UserError) as error:
        checkpoints.restore(state_at(0), 3)
    assert "3 is of another model or optimiser: " in str(error.value)
    assert "head/kernel is (2, 5) there, (2, 3) here" in str(error.value) and "\n" not in str(error.value)


def test_another_optimisers_checkpoint_is_refused(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(state_at(3, momentum=None))
    checkpoints.wait()
    with pytest.raises(UserError, match="absent there"):
        checkpoints.restore(state_at(0), 3)


def test_a_gutted_checkpoint_is_told_in_one_line(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(state_at(3))
    checkpoints.close()
    shutil.rmtree(folder / "3" / "default")
    with pytest.raises(UserError, match="3 cannot be read") as error:
        Checkpoints(folder).restore(state_at(0), 3)
    assert "\n" not in str(error.value)
