import json
import signal

import numpy as np
import pytest

from cnn_jax import UserError
from cnn_jax.data.order import Timeline, epoch_order
from cnn_jax.training.logs import RunLog, read_metrics
from cnn_jax.training.loop import train
from cnn_jax.training.signals import Interrupted, StopRequest
from cnn_jax.training.trace import Trace


class Counter:
    """Stands for a state: it counts its steps and remembers the images it was given."""

    def __init__(self, step=0, seen=0, given=(), settled=()):
        self.step, self.seen, self.given, self.settled = step, seen, list(given), list(settled)


class Saves:
    """Stands for checkpoints: what was saved, and what was noted of it."""

    def __init__(self, noted=None):
        self.saved, self.notes, self._untold = [], dict(noted or {}), []

    def save(self, state):
        if state.step not in self.saved:
            self.saved.append(state.step)
            self._untold.append(state.step)

    def note(self, step, metrics):
        assert step in self.saved
        self.notes[step] = metrics

    def noted(self, step):
        return self.notes.get(step)

    def wait(self):
        pass

    def poll(self):
        return self._untold.pop(0) if self._untold else None


class Stop(StopRequest):
    """A signal that comes at the `at`-th poll."""

    def __init__(self, at=None):
        super().__init__(gentle=True, advice="; go on")
        self.at = at

    def poll(self):
        if self.at is not None:
            self.at -= 1
            if self.at == 0:
                self.received = signal.SIGTERM
        return self.received is not None


def found(step, loss=0.1):
    return {"test_loss": loss, "test_top1": step / 100, "test_top5": 1.0, "test_count": 7}


def noted(step, **options):
    return found(step, **options) | {"tested": "test"}


def run(out, state, *, epochs=3, loss=1.0, stop=None, saves=None, test_loss=0.1, batches=None, test=None, **options):
    out.mkdir(exist_ok=True)
    saves, skipped = saves or Saves(), 0

    def step(state, indices):
        nonlocal skipped
        value = loss(state.step) if callable(loss) else loss
        skipped = 0 if np.isfinite(value) else skipped + 1
        metrics = {"loss": value, "top1": 0.5, "grad_norm": 2.0, "lr": 0.1 * state.step, "skipped": skipped}
        after = Counter(state.step + 1, state.seen + 4, [*state.given, *indices.tolist()], state.settled)
        return after, {name: np.float32(value) for name, value in metrics.items()}

    timeline = Timeline(size=23, batch_size=4, epochs=epochs).going_on(state.step, state.seen)
    with RunLog(out, timeline, state.step) as log:
        state, speed = train(
            state,
            timeline=timeline,
            rows=lambda epoch, offset: epoch_order(0, epoch, 23, 4, offset),
            batches=batches or (lambda rows, epoch: iter(rows)),
            waited=lambda: 0.0,
            step=step,
            settle=lambda state, epoch: Counter(state.step, state.seen, state.given, [*state.settled, epoch]),
            test=test or (lambda state, heed: found(state.step, test_loss)),
            checkpoints=saves,
            log=log,
            stop=stop or Stop(),
            trace=Trace(out, None),
            **options,
        )
    return state, speed, saves


def records(out, *kinds):
    return [r for r in read_metrics(out / "metrics.jsonl") if r["kind"] in kinds]


def test_it_trains_settles_saves_and_tests_every_epoch(tmp_path):
    state, speed, saves = run(tmp_path, Counter())
    assert state.step == 15 and speed > 0 and state.settled == [0, 1, 2]
    assert saves.saved == [5, 10, 15]
    assert {step: noted["test_top1"] for step, noted in saves.notes.items()} == {5: 0.05, 10: 0.1, 15: 0.15}
    np.testing.assert_array_equal(state.given, np.concatenate([epoch_order(0, e, 23, 4).ravel() for e in range(3)]))
    assert [(r["kind"], r["step"]) for r in records(tmp_path, "train", "test")] == [
        (kind, step) for step in (5, 10, 15) for kind in ("train", "test")
    ]
    train, test = records(tmp_path, "train", "test")[:2]
    assert train["lr"] == pytest.approx(0.4)  # of step 4, the last of the epoch
    assert (train["grad_norm"], test["count"]) == (2.0, 7)
    assert [r["step"] for r in records(tmp_path, "saved")] == [5, 10, 15]


@pytest.mark.parametrize("start", [3, 5, 12])
def test_from_any_step_it_sees_what_an_uninterrupted_run_sees(tmp_path, start):
    whole, _, _ = run(tmp_path / "a", Counter())
    saves = Saves({5: noted(5)})
    rest, _, _ = run(tmp_path / "b", Counter(step=start, seen=start // 5 * 23 + start % 5 * 4), saves=saves)
    assert rest.given == whole.given[4 * start :]


def test_a_finished_run_has_nothing_to_do(tmp_path):
    state, speed, saves = run(tmp_path, Counter(step=15, seen=3 * 23), saves=Saves({15: noted(15)}))
    assert (state.step, speed, saves.saved) == (15, None, [])


def test_a_state_whose_test_was_cut_short_is_tested_first(tmp_path):
    saves = Saves()
    saves.save(Counter(step=5))
    run(tmp_path, Counter(step=5, seen=23), saves=saves)
    assert sorted(saves.notes) == [5, 10, 15]
    assert [r["step"] for r in records(tmp_path, "test")] == [5, 10, 15]


def test_a_test_that_was_noted_and_not_logged_is_logged(tmp_path):
    """The run was killed between the two."""
    saves = Saves({5: noted(5, loss=0.7)})
    run(tmp_path, Counter(step=5, seen=23), saves=saves)
    assert [r["loss"] for r in records(tmp_path, "test")] == [0.7, 0.1, 0.1]


def test_the_result_of_another_kind_of_test_is_not_taken_over(tmp_path):
    """The run went on with a validation share, or without one."""
    saves = Saves({5: noted(5, loss=0.7) | {"tested": "validation"}})
    saves.save(Counter(step=5))
    run(tmp_path, Counter(step=5, seen=23), saves=saves)
    assert [r["loss"] for r in records(tmp_path, "test")] == [0.1, 0.1, 0.1]


# Polls: one after each step and one after each epoch's save; so the 8th is that of step 7, the 6th follows epoch 0.
@pytest.mark.parametrize(
    ("poll", "position", "saved"), [(8, 7, [5, 7]), (5, 5, [5]), (6, 5, [5]), (18, 15, [5, 10, 15])]
)
def test_a_signal_saves_and_stops_the_run(tmp_path, poll, position, saved):
    """At an epoch's end without its test, which a resumed run makes."""
    saves = Saves()
    told = f"stopped by SIGTERM at step {position}; the checkpoint is saved; go on"
    with pytest.raises(Interrupted, match=told) as stopped:
        run(tmp_path, Counter(), stop=Stop(poll), saves=saves)
    assert stopped.value.exit_code == 75
    assert saves.saved == saved and position not in saves.notes
    assert [r["step"] for r in records(tmp_path, "train")] == saved  # nothing is lost
    assert [r["step"] for r in records(tmp_path, "saved")] == saved
    resumed = Counter(position, position // 5 * 23 + position % 5 * 4)
    state, _, _ = run(tmp_path, resumed, saves=saves)
    assert state.step == 15 and [r["step"] for r in records(tmp_path, "test")] == [5, 10, 15]


def test_a_signal_in_a_test_ends_it(tmp_path):
    saves, tested = Saves(), []

    def test(state, heed):
        for batch in heed(range(100)):
            tested.append(batch)
        return found(state.step)

    with pytest.raises(Interrupted, match="at step 5; the checkpoint is saved"):
        run(tmp_path, Counter(), stop=Stop(10), saves=saves, test=test)
    assert tested == [0, 1, 2] and saves.saved == [5] and saves.notes == {}


def test_checkpoints_within_an_epoch(tmp_path):
    _, _, saves = run(tmp_path, Counter(), save_every=2)
    assert saves.saved == [2, 4, 5, 6, 8, 10, 12, 14, 15]
    assert sorted(saves.notes) == [5, 10, 15]


def test_a_test_loss_that_is_not_finite_is_neither_noted_nor_logged(tmp_path):
    saves = Saves()
    with pytest.raises(UserError, match="the test loss became nan; a lower --optimizer.lr may help"):
        run(tmp_path, Counter(), test_loss=float("nan"), saves=saves)
    assert saves.notes == {}
    assert records(tmp_path, "test") == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_numbers_in_a_row_end_the_run_and_their_images_are_told(tmp_path, bad, capsys):
    saves = Saves()
    told = "not finite in 3 steps in a row; none of them changed the network, which is saved; .*skipped.jsonl has"
    with pytest.raises(UserError, match=told):
        run(tmp_path, Counter(), loss=lambda step: bad if step in (2, 6, 7, 8) else 1.0, saves=saves)
    idle = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [line["step"] for line in idle] == [3, 7, 8, 9]
    assert [line["images"] for line in idle] == [
        epoch_order(0, epoch, 23, 4)[row].tolist() for epoch, row in ((0, 2), (1, 1), (1, 2), (1, 3))
    ]
    assert idle[0]["loss"] == str(bad)
    assert saves.saved[0] == 5 and saves.saved[-1] >= 9
    assert records(tmp_path, "train")[0]["loss"] == 1.0  # the mean of the good ones
    assert f"step 3: loss {bad}, gradient 2.0: nothing was changed; images " in capsys.readouterr().out


def broken_at(number):
    """Batches of an epoch, of which one cannot be made."""

    def batches(rows, epoch):
        for place, row in enumerate(rows):
            if place == number and epoch == 1:
                raise UserError("file 7 is empty (0 bytes)")
            yield row

    return batches


@pytest.mark.parametrize(("number", "saved"), [(2, [5, 7]), (0, [5])])
def test_a_bad_image_in_training_ends_the_run_with_its_place_saved(tmp_path, number, saved):
    saves = Saves()
    with pytest.raises(UserError, match="file 7 is empty"):
        run(tmp_path, Counter(), saves=saves, batches=broken_at(number))
    assert saves.saved == saved


def test_a_bad_image_in_the_test_loses_no_epoch(tmp_path):
    def test(state, heed):
        raise UserError("file 9 is empty (0 bytes)")

    saves = Saves()
    with pytest.raises(UserError, match="file 9 is empty"):
        run(tmp_path, Counter(), saves=saves, test=test)
    assert saves.saved == [5]
