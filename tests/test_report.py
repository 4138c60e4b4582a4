import json

import numpy as np

from cnn_jax.data.sources import open_dataset
from cnn_jax.evaluation import summarize
from cnn_jax.recipes import RECIPES
from cnn_jax.tasks import make_task
from cnn_jax.training.report import report_run

LABELS = np.arange(20, dtype=np.int32) % 10


def records(seeds=None):
    """Of twenty images, three of them wrong (of the second seed five)."""
    wrong = np.arange(20) < 3
    if seeds:
        wrong = np.stack([wrong, np.arange(20) < 5], 1)
    guess = np.where(
        wrong, (LABELS.reshape(-1, *(1,) * (wrong.ndim - 1)) + 1) % 10, LABELS.reshape(-1, *(1,) * (wrong.ndim - 1))
    )
    return {
        "label": LABELS,
        "index": np.arange(20),
        "guess": guess,
        "top1": ~wrong,
        "top5": ~wrong,
        "loss": np.ones(wrong.shape),
        "confidence": np.full(wrong.shape, 0.5),
    }


def report(out, predictions, **changes):
    lines = [
        {"kind": "train", "step": 5, "epoch": 1.0, "loss": 1.0, "top1": 0.5, "lr": 0.1, "images_per_s": 9.0},
        {"kind": "saved", "step": 5},
        {"kind": "test", "step": 5, "epoch": 1.0, "loss": 1.0, "top1": 0.5, "top5": 0.5, "count": 20},
    ]
    summary = {"model": "m", "dataset": "d", "seed": 0, "steps": 5, "wall_s": 3.0, "images_per_s": 1234.5}
    summary |= {"skipped_images": {"train": 0, "test": 0}} | summarize(predictions) | changes
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = make_task(RECIPES["lenet5_modern"], 10, 1)
    told = report_run(task, out, summary, predictions, open_dataset("mnist_5k", "test"))
    assert all((out / f"{name}.png").stat().st_size > 5000 for name in ("curves", "confusion", "mistakes"))
    return told


def test_a_run_is_told_in_two_lines(tmp_path):
    told = report(tmp_path, records(), skipped_images={"train": 2, "test": 1})
    assert told.splitlines()[1] == (
        "test top-1 85.00%: 3 of 20 images wrong after step 5; 3 s, 1,234 images/s; 3 bad images skipped"
    )
    assert told.splitlines()[2].startswith(f"{tmp_path}: curves.png, confusion.png, mistakes.png, summary.json")


def test_several_seeds_are_told_with_their_spread(tmp_path):
    told = report(tmp_path, records(seeds=2), images_per_s=None)
    assert told.splitlines()[1] == "test top-1 80.00% ± 7.07% of 20 images, 2 seeds, after step 5; 3 s"
