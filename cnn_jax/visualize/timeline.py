"""The networks through the years, as a picture: `python -m cnn_jax.visualize.timeline FILE.png`."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cnn_jax.models import model_info
from cnn_jax.visualize.figure import save

# A network a paper, where it has a top-5 accuracy, with where its name stands: points to the right and up.
SHOWN = {
    "alexnet": (22, -4), "zfnet": (22, -4), "vgg16": (-18, 33), "googlenet": (9, 4), "bn_inception": (-22, 12),
    "inception_v3": (-72, -18), "resnet50": (-4, 14), "resnet152": (-20, -36), "squeezenet1_0": (7, -3),
    "densenet201": (-26, 27), "inception_v4": (-62, -30), "resnext50_32x4d": (-12, 14), "xception": (-10, -27),
    "senet154": (28, -3), "mobilenetv2_100": (8, 4), "shufflenet_v2_x1_0": (8, 4), "nasnetalarge": (-32, 33),
    "mobilenet_v3_large": (-40, 9),
}  # fmt: skip


def draw_timeline(path: Path) -> None:
    """Draws year against top-5 error on ImageNet-1k's validation images, parameters as areas, MACs as colours (PNG).

    Figures are those of the cards: for each network the first that its card has, so that protocols differ (ten crops of
    AlexNet, one of ResNet); `cnn-jax info NAME` tells which.
    """
    cards = [model_info(name) for name in SHOWN]
    errors = [100 - next(a.top5 for a in card.accuracies if a.top5) for card in cards]
    papers: dict[int, list[int]] = {}
    for number, card in enumerate(cards):
        papers.setdefault(card.year, []).append(number)
    spread = {n: (place + 0.5) / len(those) - 0.5 for those in papers.values() for place, n in enumerate(those)}
    years = [card.year + 0.7 * spread[number] for number, card in enumerate(cards)]
    params, macs = (np.array([getattr(card, key) for card in cards]) for key in ("params", "macs"))
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots()
    drawn = axes.scatter(years, errors, s=params / 4e4, c=np.log10(macs / 1e9), cmap="viridis", alpha=0.75, lw=0)
    for year, error, (name, place) in zip(years, errors, SHOWN.items(), strict=True):
        axes.annotate(name, (year, error), place, textcoords="offset points", fontsize=9)
    bar = figure.colorbar(drawn, ax=axes, label="multiply-accumulates of an image (billions)", pad=0.01)
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20]
    bar.set_ticks(np.log10(ticks).tolist(), labels=list(map(str, ticks)))
    axes.set(ylabel="top-5 error on ImageNet-1k (%)", xlim=(2011.5, 2019.6), ylim=(0, 21.5))
    axes.set_title("Areas: parameters. Errors as first published, by the protocols of their time", fontsize=10)
    axes.grid(alpha=0.3)
    save(figure, path, dpi=100)


if __name__ == "__main__":
    draw_timeline(Path(sys.argv[1]))
