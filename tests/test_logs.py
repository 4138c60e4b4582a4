import json
import sys
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

from cnn_jax import UserError
from cnn_jax.data.order import Timeline
from cnn_jax.training.logs import RunLog, read_metrics

TRAIN = {"loss": 0.5, "top1": 0.75, "lr": 0.1, "images_per_s": 1234.0, "data_wait": 0.0}
TEST = {"loss": 0.25, "top1": 0.875, "top5": 1.0, "count": 1000}


def open_log(out, step=0):
    return RunLog(out, Timeline(size=100, batch_size=10, epochs=2), step)


def made(folder):
    folder.mkdir()
    return folder


def test_records_are_json_lines(tmp_path):
    with open_log(tmp_path) as log:
        log.write("train", step=10, epoch=1.0, **TRAIN)
        log.write("test", step=10, epoch=1.0, **TEST)
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"kind": "train", "step": 10, "epoch": 1.0} | TRAIN,
        {"kind": "test", "step": 10, "epoch": 1.0} | TEST,
    ]


@pytest.mark.parametrize(
    "damage",
    [b'{"kind": "train", "st', b"{}\n", b"3\n", b"null\n", b"\xff\xfe\n", b'{"kind": "train", "step": 7}\n',
     b'{"kind": "test", "step": null, "epoch": 1, "loss": 1, "top1": 1, "top5": 1, "count": 1}\n', b'{"kind": []}\n'],
)  # fmt: skip
def test_a_resumed_run_drops_damage_and_what_came_after_its_checkpoint(tmp_path, damage):
    with open_log(tmp_path) as log:
        for step in (5, 10, 15):
            log.write("train", step=step, epoch=step / 10, **TRAIN)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(damage)
    with open_log(tmp_path, step=10) as log:
        log.write("train", step=15, epoch=1.5, **(TRAIN | {"loss": 0.0}))
    assert [(r["step"], r["loss"]) for r in read_metrics(tmp_path / "metrics.jsonl")] == [
        (5, 0.5),
        (10, 0.5),
        (15, 0.0),
    ]


def test_a_missing_file_has_no_records(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_files_that_cannot_be_written_are_told(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot write .*metrics.jsonl: Is a directory"):
        open_log(tmp_path)


def events(folder):
    """Scalars of TensorBoard's event files, read as TFRecords: length, crc, data, crc."""
    for path in sorted(folder.iterdir()):
        raw = path.read_bytes()
        while raw:
            length = int.from_bytes(raw[:8], "little")
            for value in Event.FromString(raw[12 : 12 + length]).summary.value:
                yield value.tag, value.simple_value
            raw = raw[16 + length :]


def test_tensorboard_gets_the_scalars(tmp_path):
    with open_log(tmp_path) as log:
        log.write("test", step=10, epoch=1.0, **TEST)
    assert dict(events(tmp_path / "tensorboard")) == {"test/loss": 0.25, "test/top1": 0.875, "test/top5": 1.0}


def test_an_epoch_is_one_plain_line_with_the_count(tmp_path, capsys):
    with open_log(tmp_path) as log:
        log.progress(10, TRAIN)
        log.epoch_line(10, TRAIN, TEST)
    head, line = capsys.readouterr().out.splitlines()
    means = ["0.5000", "75.00%", "0.2500", "87.50%", "100.00%", "1000", "0.1", "1,234"]
    assert line.split() == ["1/2", "10", *means, "0:00"]
    assert len(head) == len(line)


def test_a_record_that_stands_there_is_not_written_again(tmp_path):
    with open_log(tmp_path) as log:
        log.write("test", step=10, epoch=1.0, **TEST)
    with open_log(tmp_path, step=10) as log:
        log.write("test", step=10, epoch=1.0, **(TEST | {"loss": 9.0}))
        log.write("saved", step=10)
        log.write("saved", step=10)
    assert [(r["kind"], r.get("loss")) for r in read_metrics(log.path)] == [("test", 0.25), ("saved", None)]


def test_idle_steps_have_a_file_of_their_own(tmp_path, capsys):
    found = {"loss": float("nan"), "grad_norm": float("inf"), "skipped": 1.0}
    with open_log(tmp_path) as log:
        log.skipped(3, 0.3, list(range(100, 112)), found)
        log.skipped(7, 0.7, [1, 2], found)
    first, second = map(json.loads, log.skipped_path.read_text().splitlines())
    assert first == {"step": 3, "epoch": 0.3, "loss": "nan", "grad_norm": "inf", "images": list(range(100, 112))}
    told = capsys.readouterr().out
    assert (
        "step 3: loss nan, gradient inf: nothing was changed; images 100, 101, 102, 103, 104, 105, 106, 107, ..."
        in told
    )
    with open_log(tmp_path, step=5):  # resumed from before the second
        assert json.loads(log.skipped_path.read_text()) == first


def test_means_of_seeds_reach_every_log(tmp_path):
    with open_log(tmp_path) as log:
        log.write("test", step=10, epoch=1.0, **TEST, top1_std=0.01, top1_seeds=[0.8, 0.9])
    assert read_metrics(log.path)[0]["top1_seeds"] == [0.8, 0.9]
    assert dict(events(tmp_path / "tensorboard"))["test/top1_std"] == pytest.approx(0.01)


def test_use_of_the_hardware_is_part_of_train_records(tmp_path):
    class Known:
        def use(self, images_per_s):
            return {"mfu": images_per_s / 2468, "memory_gib": 1.5}

    with RunLog(tmp_path, Timeline(size=100, batch_size=10, epochs=2), 0, hardware=Known()) as log:
        log.write("train", step=10, epoch=1.0, **TRAIN)
        log.write("test", step=10, epoch=1.0, **TEST)
    train, test = read_metrics(log.path)
    assert (train["mfu"], train["memory_gib"]) == (0.5, 1.5) and "mfu" not in test


def test_weights_and_biases_get_the_numbers(tmp_path, monkeypatch):
    told = []

    class Run:
        def log(self, values, step):
            told.append((step, values))

        def finish(self):
            told.append("finished")

    def init(**options):
        told.append(options)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, errors=SimpleNamespace(Error=OSError)))
    timeline = Timeline(size=100, batch_size=10, epochs=2)
    with RunLog(made(tmp_path / "a"), timeline, 0, wandb="digits", config={"lr": 0.1}) as log:
        log.write("train", step=10, epoch=1.0, **TRAIN)
        log.write("saved", step=10)
    options, (step, values), finished = told
    assert (options["project"], options["name"], options["config"]) == ("digits", "a", {"lr": 0.1})
    assert (options["resume"], options["id"]) == ("allow", (tmp_path / "a" / "wandb-id").read_text())
    assert step == 10 and values == {f"train/{name}": value for name, value in TRAIN.items()} | {"epoch": 1.0}
    assert finished == "finished"

    def refused(**options):
        raise OSError("no API key configured\nlog in")

    monkeypatch.setattr(sys.modules["wandb"], "init", refused)
    with pytest.raises(UserError, match="Weights & Biases does not start: no API key configured"):
        RunLog(made(tmp_path / "b"), timeline, 0, wandb="digits")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--wandb needs the package wandb: pip install wandb"):
        RunLog(made(tmp_path / "c"), timeline, 0, wandb="digits")


def test_a_silent_log_writes_nothing(tmp_path):
    with RunLog(tmp_path, Timeline(size=100, batch_size=10, epochs=2), 0, silent=True) as log:
        log.write("train", step=10, epoch=1.0, **TRAIN)
        log.skipped(3, 0.3, [1], {})
        log.progress(10, TRAIN)
    assert list(tmp_path.iterdir()) == [] and log.path == tmp_path / "metrics.jsonl"
