import pytest
from tiny_states import state_at

from benchmarks.kill_test import acknowledged, in_save, kill_test
from cnn_jax.training.checkpoint import Checkpoints


def test_acknowledged_is_the_newest_saved_record(tmp_path):
    assert acknowledged(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "saved", "step": 4}\n{"kind": "train", "step": 20}\n{"kind": "saved", "step": 12}\n{"kind": "sav'
    )
    assert acknowledged(tmp_path) == 12


def test_a_save_is_seen_beside_a_whole_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        (tmp_path / "checkpoints" / "2.manifest.part").touch()  # as a kill in the first save leaves it
        assert not in_save(tmp_path)
        checkpoints.save(state_at(2))
        checkpoints.wait()
        assert not in_save(tmp_path)
        (tmp_path / "checkpoints" / "4.manifest.part").touch()
        assert in_save(tmp_path)


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_nothing():
    found = kill_test(10, seed=1)
    assert found.kills == 10 and found.good, found
