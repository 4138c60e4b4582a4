"""Runs on gs://, against a bucket of our own: the same run, whatever ends a process, and one process at a time."""

import os
import signal
import threading
from types import SimpleNamespace

import chex
import pytest
from fake_gcs import serve
from loopback import free_port
from runs import SAFETY, SHORT, records, summary
from tiny_states import assert_equal, state_at

from cnn_jax import UserError, load_variables, storage
from cnn_jax.errors import Unavailable
from cnn_jax.training import bucket as buckets
from cnn_jax.training.bucket import Copies, Lease
from cnn_jax.training.checkpoint import Checkpoints


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """Where the objects of gs://bucket lie."""
    folder = tmp_path / "served" / "bucket"
    folder.mkdir(parents=True)
    with serve(folder.parent) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield folder


def save(*steps, metrics=None):
    with Checkpoints("gs://bucket/run/checkpoints") as checkpoints:
        for step in steps:
            checkpoints.save(state_at(step))
            if metrics:
                checkpoints.note(step, {"test_top1": metrics[step]})


def steps_in(bucket):
    top = bucket / "run" / "checkpoints"
    return sorted({path.relative_to(top).parts[0] for path in top.rglob("*") if path.is_file()})


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(bucket, whole, signalled, train_here):
    """Killed when the arrays of the second epoch's checkpoint are there and its manifest is not."""
    done = signalled(signal.SIGKILL, "call:2", "cnn_jax.training.manifest:seal", *SHORT, "--out", "gs://bucket/run")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert steps_in(bucket) == ["40", "80", "80.manifest.part"] and (bucket / "run" / "metrics.jsonl").exists()
    resumed = train_here("--resume", "--out", "gs://bucket/run")
    assert resumed.returncode == 0, resumed.stderr
    assert "gs://bucket/run: from step 40 to 120" in resumed.stdout and "/cnn_jax-" not in resumed.stdout
    out, (there, _) = bucket / "run", whole
    assert summary(out)["params_digest"] == summary(there)["params_digest"]
    undrawn = {".lock", "curves.png", "confusion.png", "mistakes.png"}
    assert {path.name for path in out.iterdir()} == {path.name for path in there.iterdir()} - undrawn
    found, whole_run = ([(r["kind"], r["step"]) for r in records(run)] for run in (out, there))
    found.remove(("compiled", 40))  # at each start
    assert sorted(found) == sorted(whole_run)
    chex.assert_trees_all_equal(load_variables("gs://bucket/run"), load_variables(there))
    again = train_here("--resume", "--out", "gs://bucket/run")
    assert again.stdout == "the run in gs://bucket/run is complete; nothing to do\n"


def test_another_run_starts_from_one_there(bucket, train_here, tmp_path):
    save(3)
    started = train_here(*SHORT, "--start", "gs://bucket/run", "--out", tmp_path / "out")
    assert started.returncode == 2 and "no layer that * names has the same name and shape there" in started.stderr
    missing = train_here(*SHORT, "--start", "gs://bucket/none", "--out", tmp_path / "out")
    assert missing.stderr == "train.py: --start gs://bucket/none is no folder of a run: it has no checkpoints\n"


def test_the_newest_two_and_the_best_are_kept(bucket):
    save(1, 2, 3, 4, metrics={1: 0.5, 2: 0.9, 3: 0.6, 4: 0.7})
    assert steps_in(bucket) == ["2", "3", "4"]
    assert not list((bucket / "run" / "checkpoints").glob("*.part"))
    chex.assert_trees_all_equal(load_variables("gs://bucket/run"), state_at(2).variables)
    with Checkpoints("gs://bucket/run/checkpoints") as checkpoints:
        assert_equal(checkpoints.restore(state_at(0), 4), state_at(4))


def test_what_a_kill_in_the_middle_of_removing_leaves_is_removed(bucket, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_discard", lambda *_: None)
        save(1, 2, 3)
    assert steps_in(bucket) == ["1", "1.manifest.part", "2", "3"]
    save(4)
    assert steps_in(bucket) == ["3", "4"]


def test_a_damaged_step_is_found_and_kept_aside(bucket, capsys):
    save(3, 7)
    (bucket / "run" / "checkpoints" / "7" / "_METADATA").write_text("{}")
    with Checkpoints("gs://bucket/run/checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 3
    folder = "gs://bucket/run/checkpoints/7"
    told = f"checkpoint {folder} is damaged (_METADATA: cut short); going on from the one before\n"
    assert capsys.readouterr().out == told
    assert steps_in(bucket) == ["3", "damaged"]


def test_only_what_has_changed_is_sent(bucket, tmp_path, monkeypatch):
    here, there = tmp_path / "here", storage.place("gs://bucket/run")
    (here / "d").mkdir(parents=True)
    (here / "a").write_text("1")
    (here / "d" / "b").write_text("2")
    copies = Copies(here, there)
    copies.send()
    assert (bucket / "run" / "d" / "b").read_text() == "2"
    (bucket / "run" / "a").write_text("by another")
    (here / "d" / "b").write_text("three")
    copies.send()
    assert [(bucket / "run" / name).read_text() for name in ("a", "d/b")] == ["by another", "three"]
    (bucket / "run" / "checkpoints").mkdir()
    (bucket / "run" / "checkpoints" / "large").write_text("")
    other = tmp_path / "other"
    Copies(other, there).fetch()
    assert sorted(path.name for path in other.rglob("*") if path.is_file()) == ["a", "b"]


@pytest.fixture
def lease(bucket, monkeypatch):
    """Makes leases of one folder; `waits` is called with the seconds that it would wait."""
    monkeypatch.setattr(buckets, "BEAT", 0.01)

    def make(waits=lambda seconds: None):
        monkeypatch.setattr(buckets, "time", SimpleNamespace(sleep=waits))
        return Lease("gs://bucket/run")

    return make


def test_a_second_process_waits_and_finds_the_first_alive(lease, bucket, capsys, monkeypatch):
    beats, write = threading.Semaphore(0), Lease._write
    monkeypatch.setattr(Lease, "_write", lambda self: (write(self), beats.release())[0])
    with lease() as first:

        def two_beats(seconds):  # the first of them may have been under way
            while beats.acquire(blocking=False):
                pass
            assert all(beats.acquire(timeout=SAFETY) for _ in range(2))

        with pytest.raises(Unavailable, match="another process is at work in gs://bucket/run: process"):
            lease(two_beats).__enter__()
        first.check()
    assert f"is in the hands of process {os.getpid()}" in capsys.readouterr().out
    assert not (bucket / "run" / "lease.json").exists()


def test_a_lease_that_nobody_keeps_is_taken_and_its_holder_told(lease, monkeypatch):
    monkeypatch.setattr(buckets, "BEAT", 1e6)
    first = lease().__enter__()
    with lease() as second:
        first._end.set()
        first._beat.join()
        first._end.clear()
        monkeypatch.setattr(buckets, "BEAT", 0.01)
        first._live()  # ends, since it is lost
        with pytest.raises(Unavailable, match="another process has taken over gs://bucket/run"):
            first.check()
        second.check()


def test_a_lease_of_a_process_that_is_gone_is_taken_at_once(lease, monkeypatch, capsys):
    monkeypatch.setattr(buckets, "BEAT", 1e6)
    lease().__enter__()
    monkeypatch.setattr(buckets, "_runs", lambda process: False)
    with lease(lambda seconds: pytest.fail(f"{seconds} s")):
        assert capsys.readouterr().out == ""


def test_a_bucket_that_does_not_answer_or_is_not_there_is_told(bucket, monkeypatch, train_here):
    missing = train_here(*SHORT, "--out", "gs://other/run")
    assert missing.returncode == 2 and missing.stderr.startswith("train.py: cannot write to gs://other/run: 404")
    assert missing.stderr.count("\n") == 1
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    silent = train_here("--resume", "--out", "gs://bucket/run")
    assert silent.returncode == 75
    assert silent.stderr.startswith("train.py: cannot reach gs://bucket/run: ") and silent.stderr.count("\n") == 1


def test_without_gcsfs_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://nowhere")
    with pytest.raises(UserError, match=r"gs://bucket/run needs gcsfs: pip install 'cnn-jax\[gcs\]'"):
        storage.place("gs://bucket/run")


def test_a_bucket_that_fails_or_forbids_is_one_line(tmp_path, monkeypatch, train_here):
    """Where it is read first, and in the thread that makes a step count."""
    (tmp_path / "bucket" / "run").mkdir(parents=True)
    (tmp_path / "bucket" / "run" / "config.json").write_text("{}")
    answers = iter([403])
    with serve(tmp_path, lambda read: next(answers, None)) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        forbidden = train_here("--resume", "--out", "gs://bucket/run")
        monkeypatch.setattr(
            Copies, "send", lambda self: (_ for _ in ()).throw(Unavailable("cannot write gs://bucket/x"))
        )
        away = train_here(*SHORT, "--out", "gs://bucket/other")
    assert forbidden.returncode == 2 and forbidden.stderr.count("\n") == 1
    assert forbidden.stderr.startswith("train.py: cannot read gs://bucket/run/config.json: Forbidden")
    assert away.returncode == 75 and away.stderr == "train.py: cannot write gs://bucket/x\n"


def test_a_save_that_the_bucket_cuts_short_may_be_tried_again(bucket):
    def away():
        raise Unavailable("cannot write gs://bucket/run/metrics.jsonl: Server disconnected, 7 times")

    with Checkpoints("gs://bucket/run/checkpoints", away) as checkpoints:
        checkpoints.save(state_at(3))
        with pytest.raises(
            Unavailable, match="checkpoints/3 cannot be written: cannot write gs://bucket/run/metrics.jso"
        ):
            checkpoints.wait()
