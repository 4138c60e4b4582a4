import pytest
from tensorboardX.proto.event_pb2 import Event

from cnn_jax import UserError
from cnn_jax.data.order import Timeline
from cnn_jax.training.logs import RunLog, read_metrics

TRAIN = {"loss": 0.5, "top1": 0.75, "lr": 0.1, "images_per_s": 1234.0, "data_wait": 0.0}
TEST = {"loss": 0.25, "top1": 0.875, "top5": 1.0, "count": 1000}


def open_log(out, step=0):
    return RunLog(out, Timeline(size=100, batch_size=10, epochs=2), step)


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
    assert line.split() == ["1/2", "10", "0.5000", "75.00%", "0.2500", "87.50%", "100.00%", "1000", "0.1", "1,234"]
    assert len(head) == len(line)
