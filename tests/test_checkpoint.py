import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loopback import run_script
from tiny_states import assert_equal, state_at

from cnn_jax import UserError
from cnn_jax.training.checkpoint import Checkpoints, load_variables


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def save(folder, *steps, **options):
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(state_at(step, **options))


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_whole_state_comes_back_bit_for_bit(folder):
    save(folder, 7)
    with Checkpoints(folder) as checkpoints:
        assert_equal(checkpoints.restore(state_at(0), 7), state_at(7))


def test_another_kind_of_key_comes_back_as_it_was(folder):
    state = state_at(7).replace(key=jax.random.key(5, impl="rbg"))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state)
        restored = checkpoints.restore(state_at(0).replace(key=jax.random.key(0, impl="rbg")), 7)
    assert_equal(restored, state)
    assert restored.key.dtype == state.key.dtype


def test_a_state_may_be_donated_as_soon_as_save_returns(folder):
    state, overwrite = state_at(1, width=500_000), jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state)
        overwrite(state.params["head"]["kernel"]).block_until_ready()
        assert_equal(checkpoints.restore(state_at(0, width=500_000), 1), state_at(1, width=500_000))


def test_seeds_side_by_side_are_saved_under_their_step(folder):
    seeds = [state_at(6).replace(key=jax.random.key(seed)) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    assert stacked.step.shape == stacked.key.shape == (3,)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(stacked)
        assert_equal(checkpoints.restore(jax.tree.map(jnp.zeros_like, stacked), 6), stacked)


def test_the_newest_two_and_the_best_are_kept(folder):
    with Checkpoints(folder) as checkpoints:
        for step, top1 in ((1, 0.5), (2, 0.9), (3, 0.8), (4, 0.9)):
            checkpoints.save(state_at(step))
            checkpoints.note(step, {"test_top1": top1})
        checkpoints.save(state_at(5))  # as a signal does, untested
        checkpoints.wait()
        assert steps_in(folder) == [2, 4, 5]
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (5, 2)  # the earlier of equals
        checkpoints.note(5, {"test_top1": 0.95})
        assert steps_in(folder) == [4, 5]
        assert checkpoints.best_step() == 5
    assert sorted(path.name for path in folder.iterdir()) == ["4", "5"]


def test_the_newest_stays_until_another_is_acknowledged(folder):
    """Whenever a kill came, it would leave the last acknowledged one."""
    acknowledged = 0
    with Checkpoints(folder) as checkpoints:
        for step in range(1, 7):
            checkpoints.save(state_at(step))
            while acknowledged < step:
                if acknowledged:
                    assert (folder / str(acknowledged) / "manifest.json").exists()
                acknowledged = checkpoints.poll() or acknowledged


def test_what_a_test_found_is_kept_with_its_step(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state_at(3))
        checkpoints.note(3, {"test_top1": np.float32(0.75), "test_loss": 0.5, "test_count": 40})
        checkpoints.save(state_at(4))
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.noted(3) == {"test_top1": 0.75, "test_loss": 0.5, "test_count": 40}
        assert checkpoints.noted(4) is None  # killed in its test, say
        assert checkpoints.noted(5) is None
        assert checkpoints.latest_step() == 4  # and 3, whose manifest was written twice, verifies too:
        assert checkpoints.best_step() == 3


def test_a_note_about_a_step_that_is_not_there_is_told(folder):
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match="checkpoints/3 cannot take the result"):
        checkpoints.note(3, {"test_top1": 0.5})


def test_an_empty_folder_has_no_steps(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.wait()
        assert checkpoints.latest_step() is None
        assert checkpoints.best_step() is None
        assert checkpoints.poll() is None


def test_each_step_is_acknowledged_once(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state_at(1))
        checkpoints.wait()
        assert [checkpoints.poll(), checkpoints.poll()] == [1, None]
        checkpoints.save(state_at(2))
        while (found := checkpoints.poll()) is None:
            pass
        assert found == checkpoints.latest_step() == 2
        checkpoints.wait()
        assert checkpoints.poll() is None


def test_a_step_that_is_there_is_not_saved_again(folder):
    save(folder, 7, 7)
    written = (folder / "7" / "manifest.json").stat().st_mtime_ns
    save(folder, 7)
    assert (folder / "7" / "manifest.json").stat().st_mtime_ns == written


def test_a_step_before_the_newest_is_told(folder):
    save(folder, 7)
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match="holds step 7 already; step 3 is not sav"):
        checkpoints.save(state_at(3))


def test_an_error_in_training_lets_the_save_be_finished(folder):
    with pytest.raises(ZeroDivisionError), Checkpoints(folder) as checkpoints:
        checkpoints.save(state_at(3))
        raise ZeroDivisionError
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 3


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


def test_a_file_in_place_of_the_folder_is_told(folder):
    folder.write_text("")
    with pytest.raises(UserError, match="checkpoints cannot be opened: "):
        Checkpoints(folder)


def test_variables_of_a_run_are_loaded_without_its_state(folder):
    with Checkpoints(folder) as checkpoints:
        for step, top1 in ((1, 0.5), (2, 0.9), (3, 0.8)):
            checkpoints.save(state_at(step))
            checkpoints.note(step, {"test_top1": top1})
    for which, step in (("best", 2), ("latest", 3)):
        variables = load_variables(folder.parent, which)
        chex.assert_trees_all_equal(variables, state_at(step).variables)
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))


def test_moving_averages_are_loaded_where_there_are_some(folder):
    averages = {"params": {"head": {"kernel": jnp.full((2, 3), 9.0)}}, "batch_stats": {"norm": {"mean": jnp.ones(4)}}}
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state_at(3).replace(ema=averages))
        chex.assert_trees_all_equal(load_variables_when_saved(checkpoints), averages)
        checkpoints.save(state_at(4).replace(ema={}))
        chex.assert_trees_all_equal(load_variables_when_saved(checkpoints), state_at(4).variables)


def load_variables_when_saved(checkpoints):
    """Beside a run that goes on."""
    checkpoints.wait()
    return load_variables(checkpoints.directory.parent)


def test_a_network_without_batch_statistics_is_loaded(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state_at(3).replace(batch_stats={}))
    assert load_variables(folder.parent)["batch_stats"] == {}


def test_a_run_that_was_never_tested_gives_its_latest(folder):
    save(folder, 4)
    chex.assert_trees_all_equal(load_variables(folder.parent), state_at(4).variables)


def test_only_the_best_and_the_latest_can_be_asked_for(folder):
    save(folder, 4)
    with pytest.raises(UserError, match="which must be best or latest, not 'worst'"):
        load_variables(folder.parent, "worst")


def test_a_folder_without_checkpoints_is_told(folder):
    with pytest.raises(UserError, match="is no folder of a run: it has no checkpoints"):
        load_variables(folder.parent)
    save(folder)
    with pytest.raises(UserError, match="checkpoints holds no checkpoint yet"):
        load_variables(folder.parent)


ON_EIGHT_DEVICES = """
import sys, jax
from jax.sharding import NamedSharding, PartitionSpec as P
from tiny_states import assert_equal, state_at
from cnn_jax.training.checkpoint import Checkpoints

assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("data",))
everywhere, over_columns = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, "data"))

def laid_out(state):
    state = jax.device_put(state, everywhere)
    return jax.tree.map(lambda x: jax.device_put(x, over_columns) if x.shape == (2, 16) else x, state)

with Checkpoints(sys.argv[4]) as checkpoints:
    restored = checkpoints.restore(laid_out(state_at(0, width=16)), 3)
    assert_equal(restored, state_at(3, width=16))
    kernel = restored.params["head"]["kernel"]
    assert kernel.sharding == over_columns and kernel.addressable_shards[0].data.shape == (2, 2)
    assert len(restored.step.sharding.device_set) == len(restored.key.sharding.device_set) == 8
    checkpoints.save(laid_out(state_at(4, width=16)))

    def eight_seeds(step):  # each on a device of its own
        seeds = jax.vmap(lambda seed: state_at(step).replace(key=jax.random.key(seed + step)))(jax.numpy.arange(8))
        return jax.device_put(seeds, NamedSharding(mesh, P("data")))

    checkpoints.save(eight_seeds(5))
    restored = checkpoints.restore(eight_seeds(0), 5)
    assert_equal(restored, eight_seeds(5))
    assert restored.key.sharding.is_equivalent_to(eight_seeds(5).key.sharding, 1)
    assert restored.step.addressable_shards[0].data.shape == (1,)
"""


def test_a_checkpoint_moves_to_another_number_of_devices_and_back(folder):
    save(folder, 3, width=16)
    (process,) = run_script(ON_EIGHT_DEVICES, 1, 8, folder)
    assert process.code == 0, process.stderr
    with Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore(state_at(0, width=16), 4)
    assert jax.device_count() == 1
    assert_equal(restored, state_at(4, width=16))


TWO_PROCESSES = """
import json, sys, jax
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
from functools import partial
from pathlib import Path
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec as P
from tiny_states import state_at, with_key_data
from cnn_jax import UserError
from cnn_jax.training.checkpoint import Checkpoints

assert (jax.process_count(), jax.device_count()) == (2, 2)
everywhere = NamedSharding(jax.make_mesh((2,), ("data",)), P())
everywhere_at = lambda step: jax.jit(partial(state_at, step), out_shardings=everywhere)()
folder, said = Path(sys.argv[4]), []

with Checkpoints(folder) as checkpoints:
    said.append(checkpoints.latest_step())
    for step, top1 in ((1, 0.9), (2, 0.5), (3, 0.7), (4, 0.8)):
        checkpoints.save(everywhere_at(step))
        checkpoints.save(everywhere_at(step))
        checkpoints.note(step, {"test_top1": top1})
        said.append(checkpoints.poll())
    said += [checkpoints.noted(4), checkpoints.noted(9)]
    try:
        checkpoints.save(everywhere_at(2))
    except UserError as error:
        said.append(str(error))
    try:
        checkpoints.note(2, {"test_top1": 1.0})
    except UserError as error:
        said.append("cannot take" in str(error))

if jax.process_index() == 0:
    (folder / "4" / "_METADATA").write_text("{}")
multihost_utils.sync_global_devices("damaged")
with Checkpoints(folder) as checkpoints:
    said += [checkpoints.latest_step(), checkpoints.best_step()]
    restored = checkpoints.restore(everywhere_at(0), 3)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), with_key_data(restored), with_key_data(everywhere_at(3)))
    said += [all(jax.tree.leaves(same)), restored.key.sharding == everywhere]
    checkpoints.save(everywhere_at(4))
    checkpoints.wait()
    said.append(checkpoints.latest_step())
print("SAID", json.dumps(said))
"""


def test_two_processes_share_a_folder_and_decide_alike(folder):
    processes = run_script(TWO_PROCESSES, 2, 1, folder)
    assert [process.code for process in processes] == [0, 0], processes
    first, second = (json.loads(process.stdout.split("SAID ")[1]) for process in processes)
    assert first == second
    assert first == [
        *(None, 1, 2, 3, 4),
        *({"test_top1": 0.8}, None),
        *(f"{folder} holds step 4 already; step 2 is not saved", True),
        *(3, 1, True, True, 4),
    ]
    damaged = f"checkpoint {folder / '4'} is damaged (_METADATA: cut short); going on from the one before"
    lines = [[line for line in process.stdout.splitlines() if "damaged" in line] for process in processes]
    assert lines == [[damaged], []]
    assert steps_in(folder) == [1, 3, 4]
    with Checkpoints(folder) as checkpoints:  # a single process goes on
        assert_equal(checkpoints.restore(state_at(0), 4), state_at(4))
