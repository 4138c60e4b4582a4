import pytest

from benchmarks.kill_test import acknowledged, kill_test


def test_acknowledged_is_the_newest_saved_record(tmp_path):
    assert acknowledged(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "saved", "step": 4}\n{"kind": "train", "step": 20}\n{"kind": "saved", "step": 12}\n{"kind": "sav'
    )
    assert acknowledged(tmp_path) == 12


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_nothing():
    found = kill_test(10, seed=1)
    assert found.kills == 10 and found.good, found
