"""What a run found, for a person: its pictures and two lines."""

from pathlib import Path
from typing import Any

from cnn_jax.data.dataset import Dataset
from cnn_jax.tasks import Records, Task
from cnn_jax.training.logs import read_metrics
from cnn_jax.visualize import can_draw


def report_run(task: Task, out: Path, summary: dict[str, Any], records: Records, test_set: Dataset) -> str:
    """Draws curves.png and the task's pictures into a run's folder, if matplotlib is there; says what came out.

    `summary` is that of summary.json, `records` are evaluation.evaluate's on the test split.
    """
    pictures = "no pictures (pip install matplotlib)"
    if can_draw():
        from cnn_jax.visualize import draw_curves

        title = f"{summary['model']} on {summary['dataset']}, seed {summary['seed']}"
        draw_curves(read_metrics(out / "metrics.jsonl"), out / "curves.png", title, task.trained, task.tested[0])
        pictures = ", ".join(["curves.png", *task.draw(out, title, records, test_set)])
    skipped = sum(summary["skipped_images"].values())
    speed = f", {summary['images_per_s']:,.0f} images/s" if summary["images_per_s"] else ""
    return (
        f"\n{task.told(summary)} after step {summary['steps']}; {summary['wall_s']:.0f} s{speed}"
        f"{f'; {skipped} bad images skipped' if skipped else ''}\n"
        f"{out}: {pictures}, summary.json, metrics.jsonl, tensorboard/, checkpoints/"
    )
