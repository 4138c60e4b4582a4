"""train.py stopped and resumed: real kills, signals, full disks, folders of other runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from runs import SHORT, start, summary, wait_for_step


def test_a_run_killed_halfway_and_resumed_equals_an_uninterrupted_one(whole, train_command, run_train, tmp_path):
    out = tmp_path / "run"
    process = start(train_command, *SHORT, "--out", out)
    wait_for_step(out, 60, process)  # in mid-epoch, twenty steps behind a checkpoint
    process.kill()
    process.communicate()
    assert not (out / "summary.json").exists()
    resumed = run_train("--resume", "--out", out)
    assert resumed.returncode == 0, resumed.stderr
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 120  # no record stands twice


def test_a_run_killed_before_its_first_checkpoint_starts_again(whole, train_command, run_train, tmp_path):
    out = tmp_path / "run"
    process = start(train_command, *SHORT, "--out", out)
    while not (out / "config.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    resumed = run_train("--resume", "--out", out)
    assert resumed.returncode == 0, resumed.stderr
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_ctrl_c_and_sigterm_save_and_exit(whole, train_command, run_train, tmp_path, signum, code):
    out = tmp_path / "run"
    process = start(train_command, *SHORT, "--out", out)
    wait_for_step(out, 20, process)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert re.fullmatch(
        f"train.py: stopped by {signum.name} at step \\d+; the checkpoint is saved; "
        f"go on with: uv run train.py --resume --out {out}\n",
        stderr,
    )
    resumed = run_train("--resume", "--out", out)
    assert resumed.returncode == 0, resumed.stderr
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_before_training_ends_the_run_at_once(train_command, tmp_path, signum, code):
    for seconds in (0.5, 1.0, 1.5, 2.0, 3.0):  # importing, reading data, compiling
        process = start(train_command, "--out", tmp_path / f"run{seconds}")
        time.sleep(seconds)
        process.send_signal(signum)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code
        assert re.fullmatch(rf"train.py: stopped by {signum.name}( before the first step; noth|; go on wi).*\n", stderr)


def test_a_signal_in_the_first_compilation_ends_the_run_at_once(whole, train_command, run_train, tmp_path):
    """A run says where it starts from, compiles for seconds, and says what it found in a table."""
    out = tmp_path / "run"
    process = start(train_command, *SHORT, "--out", out)
    told = iter(process.stdout.readline, "")
    assert any("from step 0 to 120" in line for line in told)
    time.sleep(0.5)
    process.terminate()
    began = time.monotonic()
    rest, stderr = process.communicate(timeout=60)
    assert process.returncode == 75 and time.monotonic() - began < 5 and "train loss" not in rest
    assert stderr == f"train.py: stopped by SIGTERM; go on with: uv run train.py --resume --out {out}\n"
    assert run_train("--resume", "--out", out).returncode == 0
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_in_one_line(train_command, run_train, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this place lets nobody mount")
    try:
        done = run_train(*SHORT, "--out", disk / "run")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert done.returncode == 2
    assert done.stderr.startswith("train.py: ") and done.stderr.count("\n") == 1, done.stderr


def test_other_data_of_the_same_name_is_not_resumed_on(whole, run_train, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["train"].startswith("4000 images, crc32 ")
    config["data"]["train"] = "3999 images, crc32 00000000"
    (out / "config.json").write_text(json.dumps(config))
    done = run_train("--resume", "--out", out)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "another configuration: data.train: 3999 images, crc32 00000000 -> 4000 images" in done.stderr


def test_a_signal_after_the_last_test_lets_the_pictures_be_finished(whole, train_command, tmp_path):
    out = tmp_path / "run"
    process = start(train_command, *SHORT, "--out", out)
    wait_for_step(out, 120, process)
    while kinds(out).count("test") < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


def test_a_signal_in_a_test_leaves_it_to_the_resumed_run(train_command, run_train, tmp_path):
    """The train record of an epoch's last step is written right before a test of a second or two."""
    options = ("--train-split", "test[:200]", "--test-split", "train", "--batch-size", 4, "--epochs", 2)
    process = start(train_command, *options, "--out", tmp_path / "cut")
    wait_for_step(tmp_path / "cut", 50, process)
    process.terminate()
    began = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75 and time.monotonic() - began < 10
    assert "stopped by SIGTERM at step 50; the checkpoint is saved; go on with: " in stderr
    assert kinds(tmp_path / "cut") == ["train", "train", "train", "saved"]  # 20, 40 and 50, and no test
    assert run_train("--resume", "--out", tmp_path / "cut").returncode == 0
    assert run_train(*options, "--out", tmp_path / "whole").returncode == 0
    assert summary(tmp_path / "cut")["params_digest"] == summary(tmp_path / "whole")["params_digest"]
    assert kinds(tmp_path / "cut").count("test") == kinds(tmp_path / "whole").count("test") == 2


def kinds(out) -> list[str]:
    return [json.loads(line)["kind"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_signal_in_a_save_lets_it_be_finished(whole, train_command, run_train, tmp_path):
    out = tmp_path / "run"
    process = start(train_command, *SHORT, "--save-every", 3, "--out", out)
    while not list(out.glob("checkpoints/*tmp*")):
        assert process.poll() is None
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75 and stderr.count("\n") == 1, stderr
    assert not list(out.glob("checkpoints/*tmp*"))
    resumed = run_train("--resume", "--out", out)
    assert resumed.returncode == 0, resumed.stderr
    step = int(re.search("at step (\\d+)", stderr)[1])
    assert f"from step {step} to 120" in resumed.stdout
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(whole, run_train, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    (out / "summary.json").unlink()
    newest = max((out / "checkpoints").iterdir(), key=lambda path: int(path.name))
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)
    resumed = run_train("--resume", "--out", out)
    assert resumed.returncode == 0, resumed.stderr
    assert f"checkpoint {newest} is damaged" in resumed.stdout and "from step 80 to 120" in resumed.stdout
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


def test_one_command_begins_a_run_and_goes_on_with_it(whole, train_command, run_train, tmp_path):
    """As a scheduler starts it, again and again."""
    command = (*SHORT, "--out", tmp_path / "run", "--resume", "auto")
    process = start(train_command, *command)
    wait_for_step(tmp_path / "run", 60, process)
    process.kill()
    process.communicate()
    assert run_train(*command).returncode == 0
    assert summary(tmp_path / "run")["params_digest"] == summary(whole[0])["params_digest"]
    assert "nothing to do" in run_train(*command).stdout


def test_bad_numbers_end_a_run_with_their_images_and_its_state_kept(run_train, tmp_path):
    out = tmp_path / "run"
    done = run_train(
        *SHORT, "--optimizer.lr", 1e30, "--schedule.warmup", 0, "--schedule.kind", "constant", "--out", out
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "not finite in 3 steps in a row" in done.stderr
    idle = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [len(line["images"]) for line in idle[:3]] == [100, 100, 100]
    assert f"step {idle[0]['step']}: loss " in done.stdout
    again = run_train("--resume", "--out", out, "--optimizer.lr", 0.01, "--allow-change")
    assert "goes on with optimizer.lr: 1e+30 -> 0.01" in again.stdout


def test_a_plateau_survives_an_interruption(train_command, run_train, tmp_path):
    """The schedule's memory is in the optimiser's state, the epoch's mean loss so far included."""
    options = (*SHORT, "--schedule.kind", "plateau", "--schedule.patience", 1, "--optimizer.lr", 0.3)
    assert run_train(*options, "--out", tmp_path / "whole").returncode == 0
    process = start(train_command, *options, "--out", tmp_path / "cut")
    wait_for_step(tmp_path / "cut", 60, process)
    process.terminate()
    process.communicate(timeout=60)
    assert run_train("--resume", "--out", tmp_path / "cut").returncode == 0
    assert summary(tmp_path / "cut")["params_digest"] == summary(tmp_path / "whole")["params_digest"]


def test_a_finished_run_can_be_resumed_to_no_effect(whole, run_train):
    before = summary(whole[0])
    again = run_train("--resume", "--out", whole[0])
    assert again.returncode == 0 and "complete" in again.stdout
    assert summary(whole[0]) == before


def test_mistakes_about_a_run_folder_are_told_and_nothing_is_lost(whole, run_train):
    before = summary(whole[0])
    second = run_train(*SHORT, "--out", whole[0])
    assert second.returncode == 2 and "already holds a run" in second.stderr
    another = run_train("--resume", "--out", whole[0], "--recipe", "lenet5_1998")
    assert another.returncode == 2 and "has another configuration" in another.stderr
    assert "model: lenet5_modern -> lenet5" in another.stderr and another.stderr.count("\n") == 1
    assert summary(whole[0]) == before


def test_a_checkpoint_of_another_model_is_told(whole, run_train, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"model": "lenet5", "loss": "map"}))
    done = run_train("--resume", "--out", out)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "is of another model or optimiser" in done.stderr
