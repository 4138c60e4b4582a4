"""`cnn-jax export`: published weights or a run of train.py, as files for other programs."""

from pathlib import Path

from cnn_jax import storage
from cnn_jax.commands.network import open_source
from cnn_jax.export import Format, export_network


def export_command(
    *, source: str, weights: str | None, format: Format, image_size: int | None, out: Path | None
) -> str:
    """What export_network says of a network, in `out` or exported-SOURCE.

    `source` and `weights` are open_source's.

    Raises:
      UserError: no such run or weights; as export_network.
    """
    network = open_source(source, weights, image_size=image_size)
    out = out or Path(f"exported-{storage.place(source).name}")
    return export_network(
        network.name, network.model, network.variables, out, format, seen=network.seen, classes=network.classes
    )
