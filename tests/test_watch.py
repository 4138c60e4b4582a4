"""The loop of train.py, in this process: what is saved, tested and written down, and what stops it.

Epochs of 23 images in batches of 4: five steps, three images pass by.
"""

import json
import signal
from types import SimpleNamespace

import numpy as np
import pytest

import train
from cnn_jax import UserError
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.engines import OnDevice
from cnn_jax.data.loaders import Loader
from cnn_jax.data.order import epoch_order
from cnn_jax.errors import BadData
from cnn_jax.recipes.command_line import parse
from cnn_jax.tasks import classify
from cnn_jax.training import compiled, watch
from cnn_jax.training.checkpoint import Checkpoints
from cnn_jax.training.logs import RunLog, read_metrics
from cnn_jax.training.signals import Interrupted, StopRequest

SMALL = ("--dataset", "synthetic:28x28x5", "--train-split", "train[:23]", "--test-split", "test[:10]",
         "--batch-size", "4", "--epochs", "3", "--optimizer.lr", "0.001")  # fmt: skip


class Stop(StopRequest):
    """A signal that comes at the `at`-th poll."""

    def __init__(self, at=None):
        super().__init__()
        self.at = at

    def poll(self):
        self.polls += 1
        if self.polls == self.at:
            self.received = signal.SIGTERM
        return self.received is not None


@pytest.fixture
def seen(monkeypatch):
    """What the loop does: `saved` steps, `noted` ones, images `given` to steps; `bad(step)` says which are idle."""
    seen = SimpleNamespace(saved=[], noted=[], given=[], settled=[], bad=lambda step: False)
    save, note, ahead = Checkpoints.save, Checkpoints.note, compiled.compile_train

    def saved(self, state):
        seen.saved.append(int(state.step))
        save(self, state)

    def noted(self, step, metrics):
        seen.noted.append(step)
        note(self, step, metrics)

    def compile_train(*arguments):
        step, idle = ahead(*arguments), 0

        def spied(state, arrays):
            nonlocal idle
            seen.given += np.asarray(arrays.get("index", [])).tolist()
            state, metrics = step(state, arrays)
            idle = idle + 1 if seen.bad(int(state.step)) else 0
            if idle:
                metrics = np.array([np.nan, *np.asarray(metrics)[1:-1], idle], np.float32)  # the loss, ..., `skipped`
            return state, metrics

        return spied

    def compile_settle(*_):
        def settle(state, epoch):
            seen.settled.append(epoch)
            return state

        return settle

    monkeypatch.setattr(Checkpoints, "save", saved)
    monkeypatch.setattr(Checkpoints, "note", noted)
    monkeypatch.setattr(compiled, "compile_train", compile_train)
    monkeypatch.setattr(compiled, "compile_settle", compile_settle)
    return seen


def run(out, *options, at=None):
    train.run(parse([*SMALL, "--out", str(out), *options]), Stop(at))


def records(out, *kinds):
    return [r for r in read_metrics(out / "metrics.jsonl") if r["kind"] in kinds]


def steps(out, kind):
    return [r["step"] for r in records(out, kind)]


EVERY_IMAGE = np.concatenate([epoch_order(0, epoch, 23, 4).ravel() for epoch in range(3)]).tolist()


def test_it_trains_settles_saves_and_tests_every_epoch(seen, tmp_path, capsys):
    run(tmp_path / "run")
    assert seen.saved == seen.noted == [5, 10, 15] and seen.settled == [0, 1, 2] and seen.given == EVERY_IMAGE
    kinds = [(r["kind"], r["step"]) for r in records(tmp_path / "run", "train", "test")]
    assert kinds == [(kind, step) for step in (5, 10, 15) for kind in ("train", "test")]
    assert steps(tmp_path / "run", "saved") == [5, 10, 15]
    train_record, test_record = records(tmp_path / "run", "train", "test")[:2]
    assert (train_record["epoch"], test_record["count"]) == (1, 10) and train_record["grad_norm"] > 0
    printed = capsys.readouterr().out
    assert [line.split()[:2] for line in printed.splitlines() if "/3 " in line] == [
        ["1/3", "5"],
        ["2/3", "10"],
        ["3/3", "15"],
    ]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 15


# Polls: one after each step, one before each of a test's three batches. The 6th begins the test of epoch 0.
@pytest.mark.parametrize(
    ("poll", "position", "saved"),
    [(3, 3, [3]), (5, 5, [5]), (6, 5, [5]), (8, 5, [5]), (10, 7, [5, 7]), (23, 15, [5, 10, 15])],
)
def test_a_signal_saves_and_stops_the_run_which_then_goes_on(seen, tmp_path, poll, position, saved):
    """At an epoch's end without its test, or in the midst of it; the resumed run makes it first."""
    told = f"stopped by SIGTERM at step {position}; the checkpoint is saved; go on with: "
    with pytest.raises(Interrupted, match=told) as stopped:
        run(tmp_path, at=poll)
    assert stopped.value.exit_code == 75
    assert sorted(set(seen.saved)) == saved and position not in seen.noted
    assert steps(tmp_path, "train") == steps(tmp_path, "saved") == saved  # nothing is lost
    run(tmp_path, "--resume", "yes")
    assert seen.given == EVERY_IMAGE  # none twice, none left out
    assert steps(tmp_path, "test") == seen.noted == [5, 10, 15]


def test_a_test_that_was_noted_and_not_logged_is_logged(seen, tmp_path):
    """The run was killed between the two."""
    with pytest.raises(Interrupted):
        run(tmp_path, at=9)  # after the first step of epoch 1
    (first,) = records(tmp_path, "test")
    newest = tmp_path / "checkpoints" / "6"
    newest.rename(tmp_path / "6")
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"test"' not in line))
    run(tmp_path, "--resume", "yes")
    assert steps(tmp_path, "test") == [5, 10, 15] and seen.noted == [5, 10, 15]
    assert records(tmp_path, "test")[0] == first


def test_a_record_waits_for_no_step_and_has_those_up_to_its_own(seen, tmp_path, monkeypatch):
    """Every second step: written when two more are under way, or the epoch is at its end."""
    monkeypatch.setattr(watch, "LOG_EVERY", 2)
    written, under_way = RunLog.write, []

    def write(self, kind, **values):
        if kind == "train":
            under_way.append(len(seen.given) // 4 - values["step"])
        written(self, kind, **values)

    monkeypatch.setattr(RunLog, "write", write)
    run(tmp_path, "--epochs", "1")
    assert steps(tmp_path, "train") == [2, 4, 5]
    assert under_way == [2, 1, 0]


def test_the_next_epoch_is_begun_before_the_test(seen, tmp_path, monkeypatch):
    events = []
    begin, found = Loader.begin, watch.Watch.found
    monkeypatch.setattr(Loader, "begin", lambda self, epoch: events.append(epoch) or begin(self, epoch))
    monkeypatch.setattr(watch.Watch, "found", lambda self, test: events.append("tested") or found(self, test))
    monkeypatch.setattr(Loader, "close", lambda self: events.append("closed"))
    run(tmp_path, "--epochs", "2")
    assert events == [None, 1, "tested", None, "tested", "closed", "closed"]


def test_checkpoints_within_an_epoch(seen, tmp_path):
    run(tmp_path, "--save-every", "2")
    assert list(dict.fromkeys(seen.saved)) == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    assert seen.noted == [5, 10, 15]


def test_the_record_of_a_step_is_there_before_it_is_saved(seen, tmp_path, monkeypatch):
    """A run that is killed after that goes on from there, and writes none of before."""
    monkeypatch.setattr(watch, "LOG_EVERY", 2)
    save, there = Checkpoints.save, {}
    monkeypatch.setattr(
        Checkpoints,
        "save",
        lambda self, state: (there.update({int(state.step): steps(tmp_path, "train")}), save(self, state)),
    )
    run(tmp_path, "--save-every", "4", "--epochs", "1")
    assert there == {4: [2, 4], 5: [2, 4, 5]}


def test_a_test_loss_that_is_not_finite_ends_the_run_which_then_goes_on(seen, tmp_path, monkeypatch, capsys):
    """With the same test before it, the advice of a lower rate would be of no use."""
    summarize, found = classify.summarize, iter([float("nan"), 1.0, float("nan")])
    monkeypatch.setattr(classify, "summarize", lambda told: summarize(told) | {"test_loss": next(found)})
    told = "the test loss after step 5 was not finite; a lower --optimizer.lr may help, also with --resume --allow-cha"
    with pytest.raises(UserError, match=told):
        run(tmp_path)
    assert seen.noted == [5] and steps(tmp_path, "test") == []
    with pytest.raises(UserError, match=r"after step 15 was not finite; a lower --optimizer.lr may help$"):  # the last
        run(tmp_path, "--resume", "--allow-change", "--optimizer.lr", "0.0001")
    assert "the test loss after step 5 was not finite; going on" in capsys.readouterr().out
    assert steps(tmp_path, "test") == [10] and not (tmp_path / "summary.json").exists()


def test_bad_numbers_in_a_row_end_the_run_and_their_images_are_told(seen, tmp_path, capsys):
    seen.bad = lambda step: step in (3, 7, 8, 9)
    told = "not finite in 3 steps in a row; none of them changed the network, which is saved; .*skipped.jsonl has"
    with pytest.raises(UserError, match=told):
        run(tmp_path)
    idle = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [line["step"] for line in idle] == [3, 7, 8, 9]
    places = ((0, 2), (1, 1), (1, 2), (1, 3))
    assert [line["images"] for line in idle] == [epoch_order(0, epoch, 23, 4)[row].tolist() for epoch, row in places]
    assert idle[0]["loss"] == "nan"
    assert seen.saved[0] == 5 and seen.saved[-1] >= 9
    assert np.isfinite(records(tmp_path, "train")[0]["loss"])  # the mean of the good ones
    assert "step 3: loss nan, gradient " in capsys.readouterr().out


def test_a_label_out_of_range_in_training_loses_no_step(seen, tmp_path):
    """Which only the host meets as late as that."""
    images = np.zeros((23, 28, 28), np.uint8)
    labels = np.arange(23) % 3
    np.savez(tmp_path / "set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    splits = ("--train-split", "train", "--test-split", "test", "--engine", "host")
    read, late = Dataset.read, int(epoch_order(0, 1, 23, 4)[4][3])

    def broken(self, indices):
        found = read(self, indices)
        if seen.noted and late in indices and self.split == "train":  # as a file that was changed meanwhile
            raise_for_label = type(self)(self.name, self.split, ("one",), self.shape, self.source, self.indices)
            return read(raise_for_label, [int(np.flatnonzero(labels == 2)[0])])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "read", broken)
        with pytest.raises(BadData, match="has label 2, not 0 to 0"):
            run(tmp_path / "run", "--dataset", str(tmp_path / "set.npz"), *splits)
    assert seen.saved[0] == 5 and steps(tmp_path / "run", "saved")[-1] == seen.saved[-1] > 5


@pytest.mark.parametrize(("epoch", "place", "saved"), [(1, 2, [5, 7]), (1, 0, [5]), (None, 1, [5])])
def test_a_bad_image_ends_the_run_and_loses_no_step(seen, tmp_path, monkeypatch, epoch, place, saved):
    """In mid-epoch, as the first of an epoch, in a test (None)."""
    batches = OnDevice.batches

    def broken(self, rows, of=None):
        for number, batch in enumerate(batches(self, rows, of)):
            if (of, number) == (epoch, place):
                raise BadData("file 7 is empty (0 bytes)")
            yield batch

    monkeypatch.setattr(OnDevice, "batches", broken)
    with pytest.raises(UserError, match="file 7 is empty"):
        run(tmp_path)
    assert seen.saved == saved and steps(tmp_path, "saved") == saved
