"""The curves of several runs in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from cnn_jax.visualize.figure import save


def draw_comparison(runs: Mapping[str, Sequence[dict]], path: Path, title: str = "") -> None:
    """Loss and top-1 accuracy over epochs, a colour for each run: tests as lines, training as pale ones.

    `runs` are the records of their metrics.jsonl by what they are called.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    figure.suptitle(title, parse_math=False)
    loss, accuracy = figure.subplots(1, 2)
    colors = matplotlib.colormaps["tab10"]
    for number, (name, records) in enumerate(runs.items()):
        color = colors(number % colors.N)
        for kinds, style in ((("train",), {"alpha": 0.35}), (("test", "validation"), {"label": name, "marker": "."})):
            shown = [record for record in records if record["kind"] in kinds]
            for axes, key, scale in ((loss, "loss", 1), (accuracy, "top1", 100)):
                axes.plot([r["epoch"] for r in shown], [scale * r[key] for r in shown], color=color, **style)
    loss.set(title="loss (pale: in training)", ylabel="mean loss per image (nats)", yscale="log")
    accuracy.set(title="accuracy (pale: in training)", ylabel="top-1 accuracy (%)")
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    for text in figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower center", ncols=2).get_texts():
        text.set_parse_math(False)
    save(figure, path)
