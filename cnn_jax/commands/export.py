"""`cnn-jax export`: published weights or a run of train.py, as files for other programs."""

from pathlib import Path

from cnn_jax import storage
from cnn_jax.commands.network import open_network, open_run
from cnn_jax.export import Format, export_network


def export_command(
    *, source: str, weights: str | None, format: Format, image_size: int | None, out: Path | None
) -> str:
    """What export_network says of a network, in `out` or exported-SOURCE.

    `source` is a run's folder, of which the best checkpoint is taken, or with `weights` what open_network takes.

    Raises:
      UserError: no such run or weights; as export_network.
    """
    folder = storage.place(source)
    with storage.telling(f"cannot read {folder}"):
        is_run = weights is None and (folder / "config.json").exists() and (folder / "checkpoints").exists()
    if is_run:
        network, _ = open_run(source, "best", image_size=image_size)
    else:
        network = open_network(source, weights, image_size=image_size)
    out = out or Path(f"exported-{folder.name}")
    return export_network(
        network.name, network.model, network.variables, out, format, seen=network.seen, classes=network.classes
    )
