"""What a run found, for a person: its pictures and two lines."""

from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.data.dataset import Dataset
from cnn_jax.evaluation import of_seed
from cnn_jax.training.logs import read_metrics
from cnn_jax.visualize import can_draw


def report_run(out: Path, summary: dict[str, Any], predictions: dict[str, np.ndarray], test_set: Dataset) -> str:
    """Draws curves.png, confusion.png and mistakes.png into a run's folder, if matplotlib is there; says what came out.

    `summary` is that of summary.json, `predictions` are evaluation.evaluate's records on the test split; of
    several seeds the first one is drawn.
    """
    pictures = "no pictures (pip install matplotlib)"
    if can_draw():
        from cnn_jax.visualize import draw_run

        title = f"{summary['model']} on {summary['dataset']}, seed {summary['seed']}"
        records = read_metrics(out / "metrics.jsonl")
        draw_run(out, title, records, of_seed(predictions, 0), test_set.pixels, test_set.classes)
        pictures = "curves.png, confusion.png, mistakes.png"
    count, top1 = summary["test_count"], summary["test_top1"]
    if "test_top1_seeds" in summary:
        found = (
            f"{top1:.2%} ± {summary['test_top1_std']:.2%} of {count} images, {len(summary['test_top1_seeds'])} seeds,"
        )
    else:
        found = f"{top1:.2%}: {count - int(predictions['top1'].sum())} of {count} images wrong"
    skipped = sum(summary["skipped_images"].values())
    speed = f", {summary['images_per_s']:,.0f} images/s" if summary["images_per_s"] else ""
    return (
        f"\ntest top-1 {found} after step {summary['steps']}; {summary['wall_s']:.0f} s{speed}"
        f"{f'; {skipped} bad images skipped' if skipped else ''}\n"
        f"{out}: {pictures}, summary.json, metrics.jsonl, tensorboard/, checkpoints/"
    )
