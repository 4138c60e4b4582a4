# ---
# jupyter:
#   accelerator: TPU
#   colab:
#     gpuType: V5E1
#     provenance: []
#   jupytext:
#     notebook_metadata_filter: accelerator,colab
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train on a TPU or GPU from Colab
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn_jax/cnn_jax/blob/main/colab/10_accelerators.ipynb)
#
# Colab takes machines away: after hours, after idling, without a warning. Here a run lives on your Drive and goes on
# exactly where it was, on whatever machine comes next. That is shown: it is killed, stopped and damaged, and the bits
# are compared.
#
# **Runtime**: TPU v5e-1 or a GPU; on 2 CPU cores 2 to 3 minutes.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("cnn_jax") is None:  # Colab: fetched, with what it needs; JAX stays the one that is there
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", "https://github.com/cnn_jax/cnn_jax"], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--editable", "./cnn_jax[onednn,viz]"], check=True
    )
    sys.path.insert(0, os.path.abspath("cnn_jax"))  # for this kernel, which began before

import jax
import matplotlib.pyplot as plt

import cnn_jax
from cnn_jax.compilation import keep_programs

SMOKE = os.environ.get("CNN_JAX_SMOKE") == "1"  # a test of this notebook: everything small
keep_programs()  # what is compiled once is kept for the next kernel

# %% [markdown]
# A TPU belongs to one process at a time, and a GPU's memory to the first that asks. Here `train.py` is that process:
# this kernel stays on the CPU, and asks another process what there is.

# %%
import json
import shutil
import signal
import tempfile
import time
from pathlib import Path

from IPython.display import Image, Markdown, display

jax.config.update("jax_platforms", "cpu")
PROJECT = Path(cnn_jax.__file__).parents[1]


def told(*command):
    """What a command of cnn_jax says, as lines."""
    done = subprocess.run(
        [sys.executable, "-m", "cnn_jax.cli", *command], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    return done.stdout.splitlines()


print("\n".join(line for line in told("doctor") if line.startswith(("python", "versions", "devices", "self-test"))))

# %% [markdown]
# ## A folder that outlives the machine
# On Colab the runs go to your Drive. Elsewhere to a folder that is made here.

# %%
if importlib.util.find_spec("google.colab"):
    from google.colab import drive

    drive.mount("/content/drive")
    RUNS = Path("/content/drive/MyDrive/cnn_jax_runs")
else:
    RUNS = Path(tempfile.mkdtemp(prefix="cnn_jax_runs_"))
RECIPE = "--recipe lenet5_modern --epochs 3" if SMOKE else "--recipe resnet20_fast_mnist --epochs 5"


def start(name, *options):
    """Starts train.py for the run `name`, or goes on with it: the same command either way."""
    command = [sys.executable, "train.py", *RECIPE.split(), "--out", str(RUNS / name), "--resume", "auto", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT)


def show(process):
    """Prints what a process says, as it says it; returns the lines and its exit code."""
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip().replace(str(RUNS), "RUNS"))
        print(lines[-1], flush=True)
    return lines, process.wait()


# %% [markdown]
# **This cell is all that a long run needs.** Run it again after a disconnect, on a new machine, with another number
# of devices: `--resume auto` begins the run or goes on with it, from the newest checkpoint whose every byte is right.

# %%
lines, code = show(start("undisturbed"))
assert code == 0

# %% [markdown]
# ## Is it the same run afterwards?
# A run that goes on with the right weights but other random numbers, or at the start of an epoch, or with fresh momenta
# also looks fine. So `summary.json` has `params_digest`, a sha256 over all parameters and batch statistics. What
# follows does to a second run what Colab may do to yours:
#
# 1. The machine is gone: `SIGKILL`, in the middle of an epoch. Nobody can catch that one.
# 2. The machine is taken away with a warning: `SIGTERM`, as a preempted cloud machine gets it. The run saves, and exits
#    with 75, which tells a scheduler to try again.
# 3. A file of the newest checkpoint was not written whole: one byte of it is changed. The run says so, and takes the
#    checkpoint before.


# %%
def records(name, kind):
    """Records of one kind in a run's log, as far as it is written."""
    path = RUNS / name / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in found if record["kind"] == kind]


def wait_for(process, name, kind, beyond):
    """Returns the step of the first record of this kind behind step `beyond`, as soon as it is written."""
    while process.poll() is None:
        steps = [record["step"] for record in records(name, kind) if record["step"] > beyond]
        if steps:
            return steps[0]
        time.sleep(0.01)
    raise RuntimeError(process.stdout.read())


EVERY = ("--save-every", "20")  # as often as the log has a record, each a mean over the steps since the one before
last = records("undisturbed", "train")[-1]["step"]
processes, logs = [], []


def interrupt(how, beyond):
    """Goes on with the run `disturbed`, and sends it a signal when it has trained and saved behind step `beyond`."""
    process = start("disturbed", *EVERY)
    step = wait_for(process, "disturbed", "saved", beyond)
    process.send_signal(how)
    output, _ = process.communicate()
    output = [line.replace(str(RUNS), "RUNS") for line in output.splitlines()]
    begun = next(line.split("from step ")[1].split()[0] for line in output if "from step" in line)
    processes.append((how.name, begun, step, process.returncode))
    logs.append(records("disturbed", "train"))
    return output


interrupt(signal.SIGKILL, 0.2 * last)
print(f"killed with {signal.SIGKILL.name} after the checkpoint of step {processes[-1][2]} of {last} had been written")

# %%
print("\n".join(interrupt(signal.SIGTERM, 0.5 * last)[-2:]))

# %%
checkpoints = sorted((RUNS / "disturbed" / "checkpoints").glob("[0-9]*"), key=lambda folder: int(folder.name))
victim = max((path for path in checkpoints[-1].rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
with victim.open("r+b") as file:
    file.seek(victim.stat().st_size // 2)
    byte = file.read(1)
    file.seek(-1, os.SEEK_CUR)
    file.write(bytes([byte[0] ^ 1]))
print(f"one bit of {victim.relative_to(RUNS)} is another now\n")

lines, code = show(start("disturbed", *EVERY))
begun = next(line.split("from step ")[1].split()[0] for line in lines if "from step" in line)
processes.append(("a bit", begun, last, code))
logs.append(records("disturbed", "train"))

# %% [markdown]
# ## What is left of it all

# %%
figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
whole = records("undisturbed", "train")
axes.plot([r["step"] for r in whole], [r["loss"] for r in whole], color="#bbbbbb", lw=7, label="undisturbed")
for number, (log, colour) in enumerate(zip(logs, ("#e45756", "#f58518", "#4c78a8"), strict=True)):
    begun = int(processes[number][1])
    part = [r for r in log if r["step"] > begun]
    steps, losses = [r["step"] for r in part], [r["loss"] for r in part]
    axes.plot(steps, losses, color=colour, marker=".", label=f"process {number + 1}")
    if number:
        axes.axvline(begun, color=colour, lw=0.8, ls="--")
axes.set(xlabel="step", ylabel="training loss", title="One run of three processes, over one that nobody disturbed")
axes.grid(alpha=0.3)
axes.legend()
plt.show()

summaries = {name: json.loads((RUNS / name / "summary.json").read_text()) for name in ("undisturbed", "disturbed")}
rows = ["| run | process | went on from step | ended by | exit code |", "| --- | ---: | ---: | --- | ---: |"]
rows.append(f"| undisturbed | 1 | 0 | its end, step {last} | 0 |")
ends = (f"SIGKILL behind step {processes[0][2]}", f"SIGTERM behind step {processes[1][2]}", f"its end, step {last}")
for number, (_, begun, _, code) in enumerate(processes, 1):
    rows.append(f"| disturbed | {number} | {begun} | {ends[number - 1]} | {code} |")
display(Markdown("\n".join(rows)))
rows = ["| run | test top-1 | params_digest |", "| --- | ---: | --- |"]
for name, summary in summaries.items():
    rows.append(f"| {name} | {100 * summary['test_top1']:.2f} % | `{summary['params_digest'][:24]}…` |")
display(Markdown("\n".join(rows)))
same = summaries["undisturbed"]["params_digest"] == summaries["disturbed"]["params_digest"]
print("the same bits" if same else "not the same bits: on a GPU that takes --deterministic")

# %% [markdown]
# The training records of both runs are compared as well: not one figure differs. (On a GPU exact equality needs
# `--deterministic`, which costs speed: kernels that add in any order are what it forbids. On a TPU and a CPU there is
# nothing to ask for.)

# %%
FIGURES = ("step", "loss", "top1", "grad_norm", "lr")
ours, theirs = ([[r[key] for key in FIGURES] for r in records(name, "train")] for name in summaries)
print(f"{len(theirs)} training records, {sum(a != b for a, b in zip(ours, theirs, strict=True))} differ")
if not SMOKE:
    display(Image(str(RUNS / "disturbed" / "curves.png"), width=900))
if not importlib.util.find_spec("google.colab"):
    shutil.rmtree(RUNS)

# %% [markdown]
# ## On a GPU or a TPU
# Nothing in the command changes: all devices share each batch. What is worth changing:
# ```
# python train.py --recipe resnet18_fast_cifar10 --download --data-dir /content/tfds --dtype bfloat16 \
#     --out /content/drive/MyDrive/cnn_jax_runs/cifar --resume auto
# python -m cnn_jax.cli fit resnet50 --batch 256 --image-size 224 --dtype bfloat16 --memory 16   # will it fit a T4?
# python train.py ... --profile 100:110      # ten steps, for TensorBoard and ui.perfetto.dev
# ```
# - `bfloat16` is for convolutions and products; parameters, statistics, logits and the loss stay float32, so there is
#   no loss scaling. A T4 has no bfloat16 in hardware: leave it out there.
# - Data on the machine's own disk (`/content/tfds`), the run on Drive. Reading images from Drive is slow.
# - A save costs little (it goes on in the background), so `--save-every` may be every few minutes.
# - `%load_ext tensorboard` and `%tensorboard --logdir /content/drive/MyDrive/cnn_jax_runs` draw the runs as they go.
#
# A real Drive has not been tried by us. A checkpoint whose files are not whole there is not taken, as above, and where
# a file system has no locks, a line says so.
#
# ## Exercises
# 1. Kill a run within its first step, and in the middle of its last test (the log has a `saved` record, and no `test`).
#    What does `--resume auto` do in each case?
# 2. Resume a run with `--batch-size 128`, which is allowed, and one with `--optimizer.lr 0.01`, which is refused. What
#    does the message offer, and why is the batch size another matter? (`docs/architecture.md`, "The place in the
#    data".)
# 3. Train with `--seeds 4`. The digests of four seeds are in `summary.json`; is seed 2 the run that `--seed 2` gives?
