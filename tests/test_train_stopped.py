"""train.py stopped and resumed: real kills, signals, full disks, folders of other runs."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from runs import SAFETY, SHORT, records, summary


def test_a_run_killed_before_its_first_checkpoint_starts_again(whole, spied, train_here, tmp_path):
    out = tmp_path / "run"
    command = spied(tmp_path / "log", *SHORT, "--out", out, STOP=f"{int(signal.SIGKILL)} 25 .")
    assert subprocess.run(**command, capture_output=True, timeout=SAFETY).returncode == -signal.SIGKILL
    assert (out / "config.json").exists() and not list(out.glob("checkpoints/*"))
    resumed = train_here("--resume", "--out", out)
    assert resumed.returncode == 0 and "from step 0 to 120" in resumed.stdout, resumed.stderr
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


def test_ctrl_c_saves_and_exits(whole, train_here, tmp_path):
    """Of whole processes: test_train_data, there also SIGTERM."""
    out = tmp_path / "run"
    done = train_here(*SHORT, "--out", out, stop=(signal.SIGINT, 24))
    assert done.returncode == 130
    assert done.stderr == (
        "train.py: stopped by SIGINT at step 25; the checkpoint is saved; "
        f"go on with: uv run train.py --resume --out {out}\n"
    )
    resumed = train_here("--resume", "--out", out)
    assert resumed.returncode == 0 and "from step 25 to 120" in resumed.stdout, resumed.stderr
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


NOTHING, GO_ON = " before the first step; nothing to save", "; go on with: uv run train.py --resume --out {}"


@pytest.mark.parametrize(
    ("moment", "what", "signum", "code", "advice"),
    [
        ("import", "^jax$", signal.SIGINT, 130, NOTHING),
        ("import", "^jax$", signal.SIGTERM, 75, NOTHING),
        ("open", "mnist_5k.*/dataset_info.json$", signal.SIGINT, 130, NOTHING),  # reading data
        ("os.rename", "config.json.part$", signal.SIGTERM, 75, GO_ON),
    ],
)
def test_a_signal_before_training_ends_the_run_at_once(signalled, tmp_path, moment, what, signum, code, advice):
    out = tmp_path / "run"
    done = signalled(signum, moment, what, "--out", out)
    assert done.returncode == code and done.stdout == ""
    assert done.stderr == f"train.py: stopped by {signum.name}{advice.format(out)}\n"


def test_a_signal_in_the_first_compilation_ends_the_run_at_once(whole, signalled, train_here, tmp_path):
    """Of the network's init, once the run's folder is there."""
    out, compiling = tmp_path / "run", "jax/_src/compiler.py:backend_compile"
    moment = f"inside:{out / 'config.json'}"
    done = signalled(signal.SIGTERM, moment, compiling, *SHORT, "--no-compilation-cache", "--out", out)
    assert done.returncode == 75 and done.stdout == ""
    assert done.stderr == f"train.py: stopped by SIGTERM{GO_ON.format(out)}\n"
    assert train_here("--resume", "--out", out).returncode == 0
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_in_one_line(run_train, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this place lets nobody mount")
    try:
        done = run_train(*SHORT, "--out", disk / "run")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert done.returncode == 75
    assert done.stderr.startswith("train.py: ") and done.stderr.count("\n") == 1, done.stderr


def test_a_signal_after_the_last_test_lets_the_pictures_be_finished(whole, signalled, tmp_path):
    out = tmp_path / "run"
    done = signalled(signal.SIGTERM, "import", "^matplotlib$", *SHORT, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert kinds(out).count("test") == 3 and (out / "mistakes.png").exists()
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


def test_a_signal_in_a_test_leaves_it_to_the_resumed_run(whole, spied, train_here, tmp_path):
    """In the middle of the forty batches that are tested after the first epoch."""
    out = tmp_path / "run"
    command = spied(tmp_path / "log", *SHORT, "--out", out, STOP_IN_TEST=f"{int(signal.SIGTERM)} 20")
    done = subprocess.run(**command, capture_output=True, timeout=SAFETY)
    assert done.returncode == 75
    assert "stopped by SIGTERM at step 40; the checkpoint is saved; go on with: " in done.stderr
    assert kinds(out) == ["train", "train", "saved"]  # 20 and 40, and no test
    assert train_here("--resume", "--out", out).returncode == 0
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]
    assert kinds(out).count("test") == kinds(whole[0]).count("test") == 3


def kinds(out) -> list[str]:
    return [record["kind"] for record in records(out) if record["kind"] != "compiled"]


def test_a_signal_in_a_save_lets_it_be_finished(whole, signalled, train_here, tmp_path):
    """As orbax gives the first save its name."""
    out = tmp_path / "run"
    done = signalled(signal.SIGTERM, "os.rename", "checkpoints/.*tmp", *SHORT, "--save-every", 3, "--out", out)
    assert done.returncode == 75 and done.stderr.count("\n") == 1, done.stderr
    assert not list(out.glob("checkpoints/*tmp*"))
    resumed = train_here("--resume", "--out", out)
    assert resumed.returncode == 0, resumed.stderr
    step = int(re.search("at step (\\d+)", done.stderr)[1])
    assert f"from step {step} to 120" in resumed.stdout
    assert "compiled in seconds: train" in resumed.stdout  # no init: its values would not be used
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


def test_one_command_begins_a_run_and_goes_on_with_it(whole, train_here, tmp_path):
    """As a scheduler starts it, again and again."""
    command = (*SHORT, "--out", tmp_path / "run", "--resume", "auto")
    assert train_here(*command, stop=(signal.SIGTERM, 60)).returncode == 75
    assert train_here(*command).returncode == 0
    assert summary(tmp_path / "run")["params_digest"] == summary(whole[0])["params_digest"]
    assert "nothing to do" in train_here(*command).stdout


def test_a_plateau_survives_an_interruption(train_here, tmp_path):
    """The schedule's memory is in the optimiser's state, the epoch's mean loss so far included."""
    options = (*SHORT, "--schedule.kind", "plateau", "--schedule.patience", 1, "--optimizer.lr", 0.3)
    assert train_here(*options, "--out", tmp_path / "whole").returncode == 0
    assert train_here(*options, "--out", tmp_path / "cut", stop=(signal.SIGTERM, 60)).returncode == 75
    assert train_here("--resume", "--out", tmp_path / "cut").returncode == 0
    assert summary(tmp_path / "cut")["params_digest"] == summary(tmp_path / "whole")["params_digest"]


def test_bad_numbers_end_a_run_with_their_images_and_its_state_kept(train_here, tmp_path):
    out = tmp_path / "run"
    options = ("--optimizer.lr", 1e30, "--schedule.warmup", 0, "--schedule.kind", "constant")
    done = train_here(*SHORT, *options, "--out", out)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "not finite in 3 steps in a row" in done.stderr
    idle = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [len(line["images"]) for line in idle[:3]] == [25, 25, 25]
    assert f"step {idle[0]['step']}: loss " in done.stdout
    again = train_here("--resume", "--out", out, "--optimizer.lr", 0.01, "--epochs", 1, "--allow-change")
    assert f"{out}: goes on with epochs: 3 -> 1; optimizer.lr: 1e+30 -> 0.01" in again.stdout


# ----- whole runs, and what was made of them


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the uninterrupted run."""
    return shutil.copytree(whole[0], tmp_path / "run")


def change_config(out, **changes):
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | changes))
    return config


def test_a_finished_run_can_be_resumed_to_no_effect(finished, train_here):
    before = summary(finished)
    again = train_here("--resume", "--out", finished)
    assert again.returncode == 0 and "complete" in again.stdout
    assert summary(finished) == before


def test_mistakes_about_a_run_folder_are_told_and_nothing_is_lost(finished, train_here):
    before = summary(finished)
    second = train_here(*SHORT, "--out", finished)
    assert second.returncode == 2 and "already holds a run" in second.stderr
    another = train_here("--resume", "--out", finished, "--recipe", "lenet5_1998")
    assert another.returncode == 2 and "has another configuration" in another.stderr
    assert "model: lenet5_modern -> lenet5" in another.stderr and another.stderr.count("\n") == 1
    assert summary(finished) == before


def test_other_data_of_the_same_name_is_not_resumed_on(finished, train_here):
    data = json.loads((finished / "config.json").read_text())["data"]
    assert data["train"].startswith("1000 images, crc32 ")
    change_config(finished, data=data | {"train": "3999 images, crc32 00000000"})
    done = train_here("--resume", "--out", finished)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "another configuration: data.train: 3999 images, crc32 00000000 -> 1000 images" in done.stderr


def test_a_checkpoint_of_another_model_is_told(finished, train_here):
    change_config(finished, model="lenet5", loss="map")
    done = train_here("--resume", "--out", finished)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "is of another model or optimiser" in done.stderr


def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(whole, finished, train_here):
    (finished / "summary.json").unlink()
    newest = max((finished / "checkpoints").iterdir(), key=lambda path: int(path.name))
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)
    resumed = train_here("--resume", "--out", finished)
    assert resumed.returncode == 0, resumed.stderr
    assert f"checkpoint {newest} is damaged" in resumed.stdout and "from step 80 to 120" in resumed.stdout
    assert summary(finished)["params_digest"] == summary(whole[0])["params_digest"]
