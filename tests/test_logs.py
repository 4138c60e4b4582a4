import json

from tensorboardX.proto.event_pb2 import Event

from cnn_jax.training.logs import RunLog, read_metrics


def open_log(out, step=0):
    return RunLog(out, epochs=2, steps_per_epoch=10, step=step)


def test_records_are_json_lines(tmp_path):
    log = open_log(tmp_path)
    log.write("train", step=10, epoch=1.0, loss=0.5)
    log.write("test", step=10, epoch=1.0, top1=0.9)
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"kind": "train", "step": 10, "epoch": 1.0, "loss": 0.5},
        {"kind": "test", "step": 10, "epoch": 1.0, "top1": 0.9},
    ]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    log = open_log(tmp_path)
    for step in (5, 10, 15):
        log.write("train", step=step, epoch=step / 10, loss=1 / step)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # a kill in mid-line
    log = open_log(tmp_path, step=10)
    log.write("train", step=15, epoch=1.5, loss=0.0)
    log.close()
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [5, 10, 15]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["loss"] == 0.0


def test_a_missing_file_has_no_records(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


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
    log = open_log(tmp_path)
    log.write("test", step=10, epoch=1.0, loss=0.25, top1=0.5, count=1000)
    log.close()
    assert dict(events(tmp_path / "tensorboard")) == {"test/loss": 0.25, "test/top1": 0.5}


def test_an_epoch_is_one_plain_line_with_the_count(tmp_path, capsys):
    log = open_log(tmp_path)
    train = {"loss": 0.5, "top1": 0.75, "lr": 0.1, "images_per_s": 1234.0}
    log.progress(10)
    log.epoch_line(10, train, {"loss": 0.25, "top1": 0.875, "top5": 1.0, "count": 1000})
    log.close()
    head, line = capsys.readouterr().out.splitlines()
    assert line.split() == ["1/2", "10", "0.5000", "75.00%", "0.2500", "87.50%", "100.00%", "1000", "0.1", "1,234"]
    assert len(head) == len(line)
    assert json.loads(json.dumps(read_metrics(tmp_path / "metrics.jsonl"))) == []
