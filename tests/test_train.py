"""train.py as a user runs it: what a run leaves, says and computes."""

import os
import pty
import re
import shlex
import subprocess
import sys
import termios
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import SAFETY, SHORT, THOUSAND, records, summary

from cnn_jax import RECIPES, create_model, load_variables, model_info
from cnn_jax.data.augment import fit, normalize, random_affine
from cnn_jax.data.mnist_5k import read_split
from cnn_jax.data.order import epoch_order
from cnn_jax.training.checkpoint import Checkpoints
from cnn_jax.training.optimizer import make_optimizer, make_schedule
from cnn_jax.training.state import TrainState

FILES = {
    ".lock", "checkpoints", "config.json", "confusion.png", "curves.png", "dataset.json", "metrics.jsonl",
    "mistakes.png", "summary.json", "tensorboard",
}  # fmt: skip
SUMMARY = [
    "recipe", "model", "dataset", "seed", "steps", "params", "test_loss", "test_top1", "test_top5", "test_count",
    "params_digest",
    "engine", "skipped_images", "data_wait_s", "wall_s", "compile_s", "images_per_s", "device", "versions",
]  # fmt: skip


def test_a_run_leaves_everything_it_should(whole):
    out, done = whole
    assert {path.name for path in out.iterdir()} == FILES
    found = summary(out)
    assert list(found) == SUMMARY
    assert (found["recipe"], found["model"], found["dataset"]) == ("lenet5_modern", "lenet5_modern", "mnist_5k")
    assert (found["steps"], found["params"], found["test_count"]) == (120, 61_706, 1_000)
    assert len(found["params_digest"]) == 64 and found["images_per_s"] > 0
    assert 0.5 < found["test_top1"] <= found["test_top5"] <= 1
    assert sorted(p.name for p in (out / "checkpoints").iterdir())[0] == "120"


def test_the_trained_network_can_be_used(whole):
    images, labels = read_split("test")
    info = model_info("lenet5_modern")
    pixels = normalize(fit(images, (32, 32)), info.mean, info.std)
    variables = load_variables(whole[0], "latest")
    logits = create_model("lenet5_modern").apply(variables, pixels, train=False)
    assert np.mean(np.asarray(logits).argmax(-1) == labels) == summary(whole[0])["test_top1"]


def test_tensorflow_is_never_imported(whole):
    assert whole[1].stdout.splitlines()[-1] == "MODULES 0 False False"


def test_elsewhere_than_on_a_terminal_the_log_is_plain_lines(whole):
    out, done = whole
    lines = done.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[0] == "epoch")
    rows = [line.split() for line in lines[head + 1 : head + 4]]
    assert [row[0] for row in rows] == ["1/3", "2/3", "3/3"]
    assert {row[7] for row in rows} == {"1000"}  # every test image, once
    assert "\r" not in done.stdout + done.stderr and done.stderr == ""


def test_one_seed_gives_one_digest_and_another_seed_another(whole, train_here, tmp_path):
    same = train_here(*SHORT, "--out", tmp_path / "same")
    other = train_here(*SHORT, "--seed", 1, "--out", tmp_path / "other")
    assert same.returncode == other.returncode == 0
    assert summary(tmp_path / "same")["params_digest"] == summary(whole[0])["params_digest"]
    assert summary(tmp_path / "other")["params_digest"] != summary(whole[0])["params_digest"]


def test_a_closed_output_does_no_harm(train_command, tmp_path):
    command = train_command("--list-recipes")
    done = subprocess.run(
        ["bash", "-c", shlex.join(command["args"]) + " >&-"], capture_output=True, text=True, env=command["env"]
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "lenet5_modrn"], "unknown recipe 'lenet5_modrn'; did you mean lenet5_modern"),
        (["--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),
        (["--optimizer.lr", "-1"], "optimizer.lr must be above 0"),
        (["--model", "lenet"], "unknown model 'lenet'; did you mean lenet5"),
        (["--dataset", "mnist_5kk"], "unknown data set 'mnist_5kk'; did you mean mnist_5k"),
        (["--dataset", "fashion_mnist", "--data-dir", "/nowhere"], "/nowhere is not a directory"),
        (["--dataset", "fashion_mnist"], "fashion_mnist is not prepared in"),
        (["--out", "/dev/null/run"], "cannot write to --out /dev/null/run"),
        (["--batch-size", "5000"], "--batch-size 5000 is more than the 4000 training images"),
        (["--config", "/nowhere.json"], "cannot read /nowhere.json"),
        (
            ["--profile", "6240:9999", "--epochs", "100"],
            "--profile 6240:9999: the run ends with step 6199, counted from 0",
        ),
        (["--resume"], "--resume needs --out DIR"),
        (["--resume", "--out", "/nowhere"], "--resume found no run in /nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(train_here, options, message):
    assert_one_line(train_here(*options), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),  # before JAX is imported, and after
        (["--batch-size", "5000"], "--batch-size 5000 is more than the 4000 training images"),
    ],
)
def test_a_mistake_ends_a_process_with_exit_code_2(run_train, options, message):
    assert_one_line(run_train(*options), message)


def assert_one_line(done, message):
    assert done.returncode == 2
    assert done.stderr.startswith("train.py: ") and message in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stdout + done.stderr


def test_any_prepared_tfds_set_trains(train_here, tiny, tmp_path):
    options = ("--dataset", "tiny_shapes", "--data-dir", tiny, "--batch-size", 8, "--epochs", 1, "--workers", 2)
    done = train_here(*options, "--out", tmp_path / "run")
    assert done.stdout.startswith("--workers decode nothing: the images lie on the devices\n")
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path / "run")
    assert (found["dataset"], found["steps"], found["test_count"]) == ("tiny_shapes", 3, 20)
    assert found["params"] == 61_706 + 2 * 5 * 5 * 6 - 7 * 85  # three channels, three classes
    of_1998 = train_here(*options, "--recipe", "lenet5_1998", "--out", tmp_path / "of_1998")
    assert of_1998.returncode == 2 and of_1998.stderr.count("\n") == 1
    assert "num_classes must be 10 or 0, not 3" in of_1998.stderr
    assert not (tmp_path / "of_1998").exists()


def test_train_py_computes_what_its_parts_say(train_here, tmp_path):
    """Four steps by hand: keys, order, augmentation, normalisation, loss, smoothing, schedule."""
    done = train_here(
        "--epochs", 2, "--batch-size", 400, "--train-split", "train[:800]",
        "--label-smoothing", 0.1, "--seed", 3, "--augment.rotate", 15, "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images, labels = read_split("train")
    model, info, recipe = create_model("lenet5_modern"), model_info("lenet5_modern"), RECIPES["lenet5_modern"]
    key_init, key = jax.random.split(jax.random.key(3))
    optimizer = make_optimizer(recipe.optimizer, recipe.schedule, 2)
    rate = make_schedule(recipe.schedule, recipe.optimizer.lr, 2, 2)
    variables = jax.jit(partial(model.init, train=False))(key_init, jnp.zeros((1, 32, 32, 1)))
    state = fresh = TrainState.create(variables, optimizer, key)
    distortions = {name: getattr(recipe.augment, name) for name in ("translate", "scale", "shear")}

    @jax.jit
    def step(params, opt_state, padded, labels, key, rate):
        moved = random_affine(jax.random.split(key)[0], padded, rotate=15.0, **distortions)
        pixels = (moved / 255 - info.mean[0]) / info.std[0]
        targets = 0.9 * jnp.eye(10)[labels] + 0.01

        def loss(params):
            logits = model.apply({"params": params}, pixels, train=True)
            return -(targets * jax.nn.log_softmax(logits)).sum(1).mean()

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params, lr=rate, value=0.0)
        return optax.apply_updates(params, updates), opt_state

    for t in range(4):
        chosen = epoch_order(3, t // 2, 800, 400)[t % 2]
        padded = np.pad(images[chosen], ((0, 0), (2, 2), (2, 2), (0, 0)))
        key_step = jax.random.fold_in(key, t)
        params, opt_state = step(state.params, state.opt_state, padded, labels[chosen], key_step, rate(t))
        state = state.replace(params=params, opt_state=opt_state)
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        found = checkpoints.restore(fresh, 4)
    chex.assert_trees_all_close(found.params, state.params, atol=1e-5)  # float32 sums of 400 images


def test_seconds_of_compiling_are_told_and_written_down(whole):
    out, done = whole
    (found,) = (record for record in records(out) if record["kind"] == "compiled")
    programs = {"init_s", "train_s", "tests_s"}
    assert found["step"] == found["epoch"] == 0 and found.keys() - {"kind", "step", "epoch"} == programs
    assert summary(out)["compile_s"] == pytest.approx(sum(found[name] for name in programs), abs=0.03)  # rounded
    told = dict(re.findall(r"(init|train|tests) ([\d.]+)", re.search(r"compiled in seconds: (.*)", done.stdout)[1]))
    # Rounded once for the line and once for the record: 0.2504 is told as 0.3 and written as 0.25.
    assert {f"{name}_s": float(took) for name, took in told.items()} == pytest.approx(
        {name: found[name] for name in programs}, abs=0.056
    )


def test_a_reader_that_leaves_gives_no_traceback(train_command):
    command = train_command("--help")
    line = f"{shlex.join(command['args'])} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=command["env"])
    assert "Traceback" not in done.stderr and done.stdout.startswith("usage: train.py")


def test_recipes_and_help_are_shown(run_train):
    listed, helped = run_train("--list-recipes"), run_train("--help")
    assert listed.returncode == helped.returncode == 0
    assert "lenet5_1998" in listed.stdout and "--optimizer.lr" in helped.stdout


def test_the_bar_appears_on_a_terminal(train_command, tmp_path):
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 110))
    command = train_command("--epochs", 1, "--batch-size", 25, "--train-split", THOUSAND, "--out", tmp_path / "run")
    process = subprocess.Popen(**command, stdout=terminal, stderr=terminal)
    os.close(terminal)
    seen = b""
    while True:
        try:
            chunk = os.read(controller, 65536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait() == 0
    text = seen.decode()
    assert re.search(r"loss \d\.\d+, top-1 \d+\.\d%, [\d,]+ images/s", text)
    assert "epoch 1/1" in text and "\r" in text


@pytest.mark.parametrize(("recipe", "schedule"), [("lenet5_1998", "plateau"), ("lenet5_modern", "step")])
def test_other_schedules_train(train_here, tmp_path, recipe, schedule):
    done = train_here(
        "--recipe", recipe, *SHORT, "--epochs", 1, "--schedule.kind", schedule, "--schedule.boundaries", 0.5,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_without_tfds_and_matplotlib_it_still_trains(whole, train_command, tmp_path):
    """A machine with JAX alone: the digits come from the package, the pictures are left out."""
    out = tmp_path / "run"
    script = (
        "import sys\n"
        "for name in ('tensorflow_datasets', 'grain', 'matplotlib'): sys.modules[name] = None\n"
        f"import train; sys.exit(train.main({[*map(str, SHORT), '--out', str(out)]!r}))"
    )
    command = train_command() | {"args": [sys.executable, "-c", script]}
    done = subprocess.run(**command, capture_output=True, timeout=SAFETY)
    assert done.returncode == 0, done.stderr
    assert "no pictures (pip install matplotlib)" in done.stdout
    assert summary(out)["params_digest"] == summary(whole[0])["params_digest"]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "each", "mean"), [("lenet5_modern", 0.975, 0.98), ("lenet5_1998", 0.96, 0.965)])
def test_recipes_reach_their_accuracy(run_train, tmp_path, recipe, each, mean):
    top1 = []
    for seed in range(3):
        done = run_train("--recipe", recipe, "--seed", seed, "--out", tmp_path / str(seed))
        assert done.returncode == 0, done.stderr
        top1.append(summary(tmp_path / str(seed))["test_top1"])
    assert min(top1) >= each and sum(top1) / 3 >= mean, top1
