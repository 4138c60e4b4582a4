"""The benchmarks of speed: that each command gives its report, and what ratios are of."""

import json
import sys

import pytest

from benchmarks import compile as compiling
from benchmarks import inference, small_data, train_step
from benchmarks.contender import Result, compare, failures, speed_rows
from benchmarks.networks import NETWORKS, Job
from benchmarks.ours import longest
from benchmarks.report import markdown
from cnn_jax.models import model_info


def rounds(*speeds: float) -> Result:
    return Result({}, [{"images_per_s": speed, "memory_mb": 5.0} for speed in speeds])


def test_ratios_are_medians_of_each_rounds_and_the_last_row_is_their_geometric_mean():
    slow, none = rounds(10, 25, 10), Result({}, [], "out of memory")
    found = {
        "a": {"ours": rounds(20, 20, 40), "rival": slow, "other": none},  # 2, 0.8 and 4 times as fast
        "b": {"ours": rounds(5, 5, 5), "rival": slow, "other": none},
    }
    head, a, b, mean = speed_rows(found, "network")
    assert head == ("network", "ours, ms/image", "rival, ms/image", "other, ms/image", "to rival", "to other")
    assert a == ("a", "50", "100", None, "2.00", None)
    assert b[-2] == "0.50"
    assert mean == ("geometric mean", None, None, None, "1.00", None)
    assert failures(found) == ["a, other: out of memory", "b, other: out of memory"]


def test_a_contender_that_fails_or_is_late_is_told_and_the_others_go_on():
    serving = "from benchmarks.contender import serve; serve(lambda batches: batches, 1, facts={'parameters': 3})"
    commands = {
        "fine": (sys.executable, "-c", serving),
        "broken": (sys.executable, "-c", "import no_such_rival"),
        "tired": (sys.executable, "-c", "print('ready', flush=True); input(); raise SystemExit('tired')"),
    }
    found = compare(commands, rounds=2)
    assert len(found["fine"].rounds) == 2 and found["fine"].facts == {"parameters": 3}
    assert "no_such_rival" in found["broken"].failure
    assert found["tired"].failure == "tired" and found["tired"].rounds == []
    late = {"late": (sys.executable, "-c", "import time; time.sleep(600)")}
    assert compare(late, rounds=1, limit=0.1)["late"].failure == "not ready within 0.1 s"


def test_tables_stand_in_columns_and_empty_cells_are_dashes():
    assert markdown([("network", "ms"), ("a", "1.5"), ("b", None)]).splitlines() == [
        "| network |  ms |",
        "| ------- | --: |",
        "| a       | 1.5 |",
        "| b       |   - |",
    ]


def test_the_ten_networks_are_asked_for_at_their_own_sizes():
    assert len(NETWORKS) == 10
    for name, job in NETWORKS.items():
        info = model_info(name)
        assert (job.size, job.size, job.channels) == info.input_size and job.classes == info.num_classes


def test_a_training_step_is_reported_for_people_and_programs(tmp_path):
    options = ["--networks", "lenet5_modern", "--contenders", "ours", "--rounds", "1", "--batch", "2", "--seconds", "0"]
    assert train_step.main([*options, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "train_step.json").read_text())
    (result,) = found["results"].values()
    assert result["ours"]["rounds"][0]["images_per_s"] > 0
    assert result["ours"]["facts"]["parameters"] == 61_706
    assert found["machine"]["cores"] > 0 and "jax" in found["versions"] and found["date"].endswith("UTC")
    text = (tmp_path / "train_step.md").read_text()
    assert "| lenet5_modern, batch 2, 32 px |" in text and found["machine"]["cpu"] in text


def test_the_longest_kernels_are_those_of_the_gpus_streams():
    def thread(pid, tid, name):
        return {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}

    def span(tid, name, us, pid=1):
        return {"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": 0, "dur": us}

    device = {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "/device:GPU:0"}}
    head = [{}, device, thread(1, 13, "Stream #13(Compute)"), thread(1, 14, "XLA Ops"), thread(2, 5, "tf_XLAEigen")]
    spans = [
        span(13, "conv", 600),
        span(13, "add", 300),
        span(13, "conv", 300),
        span(14, "conv", 900),
        span(5, "x", 9, 2),
    ]
    assert longest(head + spans, steps=2) == [("conv", 0.45, 0.75), ("add", 0.15, 0.25)]
    on_cpu = [head[-1], span(5, "dot.1", 2000, 2), span(5, "end: dot.1", 1, 2), span(5, "Thunk::Run", 7, 2)]
    assert longest(on_cpu, steps=1, most=1) == [("dot.1", 2.0, 1.0)]


def test_inference_is_reported_for_each_batch(tmp_path):
    options = ["--networks", "lenet5_modern", "--contenders", "ours,torch", "--rounds", "1", "--batches", "2"]
    assert inference.main([*options, "--seconds", "0", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "inference.json").read_text())
    assert list(found["results"]) == ["lenet5_modern, 32 px, batch 2"]
    text = (tmp_path / "inference.md").read_text()
    assert "## Batch 2: Peak memory, MB" in text and "torch: left out without --torch-python" in text


@pytest.mark.slow
def test_compiling_is_reported_cold_and_from_the_cache(tmp_path):
    options = ["--networks", "lenet5_modern", "--contenders", "ours", "--batch", "2", "--out", str(tmp_path)]
    assert compiling.main(options) == 0
    (by,) = json.loads((tmp_path / "compile.json").read_text())["results"].values()
    assert compiling.total(by["ours"]["warm"]) < compiling.total(by["ours"]["cold"])
    assert len(by["ours"]["starts"]) == 2


@pytest.mark.slow
def test_a_whole_run_is_reported_with_the_time_to_its_accuracy(tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    options = ["--networks", "lenet5_modern", "--contenders", "ours", "--epochs", "2", "--rounds", "1"]
    assert small_data.main([*options, "--out", str(tmp_path)]) == 0
    (run,) = json.loads((tmp_path / "small_data.json").read_text())["results"]["lenet5_modern"]["ours"]
    assert run["images_per_s"] > 0 and run["top1"] > 0.5
    assert 0 < run["to_99_s"] <= run["all_s"]


def test_a_data_set_that_is_none_is_told_in_a_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        small_data.main(["--dataset", "fashion_mnits"])
    assert capsys.readouterr().err.endswith("error: unknown data set 'fashion_mnits'; did you mean fashion_mnist?\n")


def test_the_time_to_99_percent_is_of_the_epoch_from_which_on_all_are_good():
    found = small_data.found([1.0, 2.0, 3.0, 4.0], [0.97, 0.9, 0.975, 0.98], images_per_s=5)
    assert found == {"images_per_s": 5, "to_99_s": 3.0, "all_s": 4.0, "top1": 0.98}


@pytest.mark.parametrize("changes", [{}, {"options": {"epochs": 2}, "form": "eager"}])
def test_a_job_reaches_its_process_whole(changes, monkeypatch):
    *_, sent = Job("resnet18", 4).command("python", "ours", **changes)
    monkeypatch.setattr(sys, "argv", ["ours", sent])
    assert Job.given() == Job("resnet18", 4, **changes)
