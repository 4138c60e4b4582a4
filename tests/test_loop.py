import signal

import numpy as np
import pytest

from cnn_jax import UserError
from cnn_jax.data.order import Timeline, epoch_order
from cnn_jax.training.logs import RunLog, read_metrics
from cnn_jax.training.loop import train
from cnn_jax.training.signals import Interrupted, StopRequest


class Counter:
    """Stands for a state: it counts its steps and remembers the images it was given."""

    def __init__(self, step=0, seen=0, given=()):
        self.step, self.seen, self.given = step, seen, list(given)


class Saves:
    def __init__(self):
        self.saved = []

    def save(self, state, metrics=None):
        self.saved.append((state.step, metrics and metrics["test_top1"]))

    def wait(self):
        pass


def run(out, state, *, epochs=3, loss=1.0, signal_at=None, saves=None, test_loss=0.1, batches=None, test=None):
    out.mkdir(exist_ok=True)
    saves, stop = saves or Saves(), StopRequest(gentle=True, advice="; go on")

    def step(state, indices):
        if state.step == signal_at:
            stop.received = signal.SIGTERM
        return Counter(state.step + 1, state.seen + 4, [*state.given, *indices.tolist()]), {"loss": loss, "top1": 0.5}

    timeline = Timeline(size=23, batch_size=4, epochs=epochs).going_on(state.step, state.seen)
    with RunLog(out, timeline, state.step) as log:
        state, speed = train(
            state,
            timeline=timeline,
            batches=batches or (lambda epoch, offset: iter(epoch_order(0, epoch, 23, 4, offset))),
            waited=lambda: 0.0,
            step=step,
            test=test
            or (
                lambda state: {
                    "test_loss": test_loss,
                    "test_top1": state.step / 100,
                    "test_top5": 1.0,
                    "test_count": 7,
                }
            ),
            rate=lambda state, t: 0.1 * t,
            checkpoints=saves,
            log=log,
            stop=stop,
        )
    return state, speed, saves.saved


def test_it_trains_tests_and_saves_every_epoch(tmp_path):
    state, speed, saved = run(tmp_path, Counter())
    assert state.step == 15 and speed > 0
    assert saved == [(5, 0.05), (10, 0.1), (15, 0.15)]
    np.testing.assert_array_equal(state.given, np.concatenate([epoch_order(0, e, 23, 4).ravel() for e in range(3)]))
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["kind"], r["step"]) for r in records] == [
        (kind, step) for step in (5, 10, 15) for kind in ("train", "test")
    ]
    assert records[0]["lr"] == pytest.approx(0.4)  # of step 4, the last of the epoch
    assert records[1]["count"] == 7


@pytest.mark.parametrize("start", [3, 5, 12])
def test_from_any_step_it_sees_what_an_uninterrupted_run_sees(tmp_path, start):
    whole, _, _ = run(tmp_path / "a", Counter())
    rest, _, _ = run(tmp_path / "b", Counter(step=start, seen=start // 5 * 23 + start % 5 * 4))
    assert rest.given == whole.given[4 * start :]


def test_a_finished_run_has_nothing_to_do(tmp_path):
    state, speed, saved = run(tmp_path, Counter(step=15, seen=3 * 23))
    assert (state.step, speed, saved) == (15, None, [])


@pytest.mark.parametrize(("signal_at", "saved"), [(7, [(5, 0.05), (8, None)]), (9, [(5, 0.05), (10, 0.1)])])
def test_a_signal_saves_and_stops_the_run(tmp_path, signal_at, saved):
    """In mid-epoch at once; at an epoch's end after its test, so that no test is ever missing."""
    saves = Saves()
    told = f"stopped by SIGTERM at step {signal_at + 1}; the checkpoint is saved; go on"
    with pytest.raises(Interrupted, match=told) as stopped:
        run(tmp_path, Counter(), signal_at=signal_at, saves=saves)
    assert stopped.value.exit_code == 75
    assert saves.saved == saved
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == [step for step, _ in saved]  # nothing is lost
    assert [r["step"] for r in records if r["kind"] == "test"] == [step for step, top1 in saved if top1]


def test_a_signal_in_the_last_step_lets_the_run_finish(tmp_path):
    state, _, saved = run(tmp_path, Counter(), signal_at=14)
    assert (state.step, saved[-1]) == (15, (15, 0.15))


def test_a_test_loss_that_is_not_finite_is_neither_saved_nor_logged(tmp_path):
    saves = Saves()
    with pytest.raises(UserError, match="the test loss became nan; a lower --optimizer.lr may help"):
        run(tmp_path, Counter(), test_loss=float("nan"), saves=saves)
    assert saves.saved == []
    assert [r["kind"] for r in read_metrics(tmp_path / "metrics.jsonl")] == ["train"]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, loss):
    with pytest.raises(UserError, match="the training loss became (nan|inf); a lower --optimizer.lr may help"):
        run(tmp_path, Counter(), loss=loss)


def broken_at(number):
    """Batches of an epoch, of which one cannot be made."""

    def batches(epoch, offset):
        for place, row in enumerate(epoch_order(0, epoch, 23, 4, offset)):
            if place == number and epoch == 1:
                raise UserError("file 7 is empty (0 bytes)")
            yield row

    return batches


def test_a_bad_image_in_training_ends_the_run_with_its_place_saved(tmp_path):
    saves = Saves()
    with pytest.raises(UserError, match="file 7 is empty"):
        run(tmp_path, Counter(), saves=saves, batches=broken_at(2))
    assert saves.saved == [(5, 0.05), (7, None)]
    saves = Saves()
    with pytest.raises(UserError, match="file 7 is empty"):
        run(tmp_path / "first", Counter(), saves=saves, batches=broken_at(0))
    assert saves.saved == [(5, 0.05)]  # which is there already


def test_a_bad_image_in_the_test_loses_no_epoch(tmp_path):
    def test(state):
        raise UserError("file 9 is empty (0 bytes)")

    saves = Saves()
    with pytest.raises(UserError, match="file 9 is empty"):
        run(tmp_path, Counter(), saves=saves, test=test)
    assert saves.saved == [(5, None)]
