"""The curves of several runs in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from cnn_jax.visualize.figure import save


def draw_comparison(
    runs: Mapping[str, Sequence[dict]],
    path: Path,
    trained: tuple[str, str] = ("top1", "top-1"),
    shown: tuple[str, str] = ("top1", "top-1"),
) -> None:
    """Loss and a figure over epochs, a colour for each run: tests as lines, training as pale ones.

    `runs` are the records of their metrics.jsonl by what they are called; `trained` and `shown` are draw_curves'.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    colors = matplotlib.colormaps["tab10"]
    for number, (name, records) in enumerate(runs.items()):
        color = colors(number % colors.N)
        for kinds, told, style in (
            (("train",), trained[0], {"alpha": 0.35}),
            (("test", "validation"), shown[0], {"label": name, "marker": "."}),
        ):
            of = [record for record in records if record["kind"] in kinds and told in record]
            epochs = [record["epoch"] for record in of]
            loss.plot(epochs, [record["loss"] for record in of], color=color, **style)
            accuracy.plot(epochs, [100 * record[told] for record in of], color=color, **style)
    pale = "pale: in training" if trained[1] == shown[1] else f"pale: {trained[1]} in training"
    loss.set(title="loss (pale: in training)", ylabel="mean loss per image (nats)", yscale="log")
    accuracy.set(title=f"{shown[1]} ({pale})", ylabel=f"{shown[1]} (%)")
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    for text in figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower center", ncols=2).get_texts():
        text.set_parse_math(False)
    save(figure, path)
