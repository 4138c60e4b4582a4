"""`cnn-jax compare`: the curves of several runs in one picture, and a line on each."""

from pathlib import Path
from typing import Any

from cnn_jax.errors import UserError


def add_compare(commands: Any) -> None:
    """The options of the command."""
    look = commands.add_parser("compare", help="the curves of several runs in one picture")
    look.add_argument("runs", nargs="+", metavar="RUN", help="folders that train.py left, also on gs://")
    look.add_argument("--out", type=Path, default=Path("compare.png"), metavar="FILE.png")
    look.set_defaults(run=compare_command)


def compare_command(*, runs: list[str], out: Path) -> str:
    """Draws loss and accuracy of the runs, or the figure of their task; a table of them and where the picture is.

    A run that has not ended is drawn as far as it has come.

    Raises:
      UserError: no such run, or none of its epochs is tested yet; the same one twice; runs of several tasks.
    """
    from cnn_jax import storage
    from cnn_jax.tables import aligned
    from cnn_jax.tasks import TASKS
    from cnn_jax.training.logs import read_metrics
    from cnn_jax.training.trained import read_run
    from cnn_jax.visualize import can_draw

    if out.suffix.lower() != ".png":
        raise UserError(f"--out is the name of a picture, such as {out.stem}.png, not {out}")
    if len(set(runs)) < len(runs):
        raise UserError("a run is named twice")
    configs = {folder: read_run(folder) for folder in runs}
    if len(kinds := {config.task for config in configs.values()}) > 1:
        raise UserError(f"these runs have no figure in common: they learned to {' and to '.join(sorted(kinds))}")
    task = TASKS[kinds.pop()]
    key, title = task.tested[0]
    rows: list[tuple] = [("run", "model", "data set", "epochs", f"best {title} %", f"last {title} %")]
    curves = {}
    for folder, config in configs.items():
        path = storage.place(folder) / "metrics.jsonl"
        with storage.telling(f"cannot read {path}"):
            records = read_metrics(path)
        tested = [100 * record[key] for record in records if record["kind"] in ("test", "validation") and key in record]
        if not tested:
            raise UserError(f"{folder} has no tested epoch yet")
        curves[folder] = records
        rows.append((folder, config.model, config.dataset, len(tested), f"{max(tested):.2f}", f"{tested[-1]:.2f}"))
    if not can_draw():
        return f"{aligned(rows)}\nno picture (pip install matplotlib)"
    from cnn_jax.visualize import draw_comparison

    draw_comparison(curves, out, task.trained, task.tested[0])
    return f"{aligned(rows)}\n{out}"
