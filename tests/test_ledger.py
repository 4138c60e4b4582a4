"""The ledger: its claims and runs belong together, a run is made once, and the page says what results/ has."""

import json

import numpy as np
import pytest

from benchmarks.ledger import page, runs
from benchmarks.ledger.__main__ import main
from benchmarks.ledger.claims import BY_NAME, CHANCE, ERROR, ROWS, TRAINING, Row, steps_to, wanted
from benchmarks.ledger.counts import COUNTS
from benchmarks.ledger.networks import VARIANTS, register
from benchmarks.ledger.notes import NOTES
from benchmarks.ledger.page import Difference, differences, verdict
from benchmarks.ledger.results import RESULTS, Wanted, make, multiply_adds, network
from cnn_jax.models import MODELS, model_info
from cnn_jax.models.structure import structure


@pytest.fixture
def small(tmp_path) -> tuple[str, ...]:
    """Options of train.py: 128 images of its own kind, and 64 to test."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 128), ("test", 64)):
        arrays[f"x_{split}"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 10
    np.savez(tmp_path / "small.npz", **arrays)
    return "--dataset", str(tmp_path / "small.npz"), "--train-split", "train", "--test-split", "test"


@pytest.fixture(autouse=True)
def _zoo():
    """As it was before, after a test: what is tested makes the ledger's networks known."""
    before = dict(MODELS)
    yield
    MODELS.clear()
    MODELS.update(before)


def test_rows_and_runs_belong_together():
    assert len(BY_NAME) == len(ROWS)
    assert {row.run_of(arm) for row in ROWS for arm in row.arms} == set(runs.RUNS)
    for row in ROWS:
        assert (row.lower or row.published) and (row.gpu or row.minutes) and row.seeds >= 3
        assert {arm for pair in row.lower for arm in pair} | set(row.published) == set(row.arms), row.name


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
def test_what_the_card_of_a_network_counts(row):
    found = structure(row.build(), row.input_size)
    assert (found.params, found.macs) == (row.params, row.macs)


def test_runs_of_equal_cost_are_so():
    register()
    for first, second in (("small_resnext", "small_bottleneck"), ("small_densenet", "small_resnet")):
        assert model_info(first).params == pytest.approx(model_info(second).params, rel=0.03)
    first, second = (multiply_adds(runs.RUNS[run]) for run in ("small_resnext", "small_bottleneck"))
    assert first == pytest.approx(second, rel=0.03)


@pytest.mark.parametrize("run", runs.RUNS)
def test_a_recipe_has_a_network(run):
    network(runs.RUNS[run])


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: count.claim)
def test_what_is_counted_is_what_the_papers_say(count):
    assert count.holds


def result(error, training=(), failed=""):
    return {"test_top1": 1 - error / 100, "failed": failed, "training": training, "params": 1, "images_per_s": 1.0}


def test_a_claim_needs_each_difference_and_more_than_two_standard_errors():
    row = Row("r", "", "", {"a": "good", "b": "bad", "c": "worse"}, (("a", "b"), ("a", "c")))
    found = {
        "good": [result(e) for e in (10, 11, 12)],
        "bad": [result(e) for e in (11, 11, 12.5)],  # 1, 0, 0.5: half a point, twice its error of 0.29 is more
        "worse": [result(e) for e in (12, 13, 14.5)],
    }
    first, second = differences(row, found)
    assert not first.holds and second.holds
    assert str(first) == "b - a: +0.50 ± 0.29 (not clear)"
    assert verdict([first, second]) == "in part (1 of 2)"
    assert verdict([second]) == "reproduced" and verdict([first]) == "not reproduced"
    assert not Difference("a", "b", (-1.0, -1.0, -1.0)).holds
    never = Difference("a", "b", (1.0, float("nan"), 1.0))
    assert not never.holds and str(never) == "b - a: not reached (not clear)"
    met = Row("p", "", "", {"a": "good"}, published={"a": 11.0})
    assert differences(met, found)[0].holds
    assert not differences(Row("p", "", "", {"a": "good"}, published={"a": 10.9}), found)[0].holds


def test_figures_of_a_run():
    records = [[20 * n, 1.0, top1] for n, top1 in enumerate((0.2, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0), start=1)]
    run = result(20.0, records)
    assert ERROR.of(run) == pytest.approx(20)
    assert TRAINING.of(run) == pytest.approx(12)  # of the last five
    assert steps_to(20).of(run) == 120  # 0.6 to 1.0 are 0.8
    assert steps_to(5).of(run) != steps_to(5).of(run)  # never: not a number
    assert ERROR.of(result(20.0, records, "gone")) == TRAINING.of(result(20.0, records, "gone")) == CHANCE


def test_a_run_that_several_claims_need_is_made_once_with_all_their_tests():
    plain, tested = (Row("x", "", "", {"a": "relu"}, protocols=p) for p in ((), (("center",),)))
    assert wanted((plain, tested)) == [Wanted("relu", seed, (("center",),)) for seed in range(3)]


def test_a_run_is_made_once_and_says_by_what(small, tmp_path, capsys):
    one = Wanted("crops", 3, (("ten_crop", "--resize", "28"),))
    make([one], small, tmp_path / "results", tmp_path / "runs", jobs=1)
    file = one.result(tmp_path / "results")
    found, written = json.loads(file.read_text()), file.stat().st_mtime_ns
    assert found["command"] == "uv run python -m benchmarks.ledger.run train --recipe crops --seed 3"
    assert found["steps"] == 10 and found["training"][-1][0] == 10 and len(found["tests"]) == 5
    assert 0 <= found["protocols"]["ten_crop --resize 28"] <= 1
    assert found["machine"]["cores"] == 1 and len(found["params_digest"]) == 64
    make([one], small, tmp_path / "results", tmp_path / "runs", jobs=1)
    assert file.stat().st_mtime_ns == written
    assert "[1/1] crops, seed 3: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--row", "relu-tan"], "unknown row 'relu-tan'; did you mean relu-tanh?"),
        (["--row", "lrn", "--dataset", "nothing.npz"], "nothing.npz"),
        (["--row", "lrn", "--check"], "lrn-0.json is not there to compare with; run it without --check first"),
    ],
)
def test_a_mistake_is_one_line(options, told, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.ledger.__main__.RESULTS", tmp_path / "results")
    monkeypatch.setattr("benchmarks.ledger.__main__.FOLDERS", tmp_path / "runs")
    assert main([*options, "--jobs", "1"]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_a_check_compares_digests_and_says_where_processors_differ(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.ledger.__main__.RESULTS", tmp_path)

    def result(digest, avx512):
        return {"params_digest": digest, "machine": {"cpu": "EPYC", "avx2": True, "avx512": avx512}}

    def made(wanted, data, results, folders, jobs):
        for one in wanted:
            one.result(results).write_text(json.dumps(result(f"bits of {one.run}-{one.seed}", True)))

    monkeypatch.setattr("benchmarks.ledger.__main__.make", made)
    for seed in range(3):
        for run in ("lrn", "four_layers"):
            Wanted(run, seed).result(tmp_path).write_text(json.dumps(result(f"bits of {run}-{seed}", True)))
    assert main(["--row", "lrn", "--check"]) == 0
    assert capsys.readouterr().out.count(", the same\n") == 6
    Wanted("lrn", 1).result(tmp_path).write_text(json.dumps(result("others", False)))
    Wanted("lrn", 2).result(tmp_path).write_text(json.dumps(result("others", True)))
    assert main(["--row", "lrn", "--check"]) == 1
    told = capsys.readouterr().out
    assert "lrn, seed 1: bits of lrn-1, ANOTHER (EPYC with AVX2 there, EPYC with AVX-512 here)\n" in told
    assert "lrn, seed 2: bits of lrn-2, ANOTHER\n" in told


def test_the_page_is_what_the_results_say(tmp_path, monkeypatch):
    kept = page.PAGE.read_text()
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(page, "_draw", lambda *_: None)
    page.write_page(RESULTS)
    assert (tmp_path / "page.md").read_text() == kept
    for name in page.PICTURES.glob("*.png"):
        assert f"images/reproduction/{name.name}" in kept


def test_a_claim_that_failed_has_a_guess_why():
    assert set(NOTES) <= set(BY_NAME)
    for row in ROWS:
        found: dict = {}
        for one in row.wanted():
            found.setdefault(one.run, []).append(one.read(RESULTS))
        if all(all(runs) for runs in found.values()):
            assert verdict(differences(row, found)) == "reproduced" or row.name in NOTES, row.name
