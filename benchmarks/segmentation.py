"""Segmentation: U-Net and DeepLab heads on two backbones, mean IoU on scenes that were never seen.

    uv run python -m benchmarks.segmentation --dir DIR [--seeds 3] [--epochs N] [--models resnet18 mobilenet_v2]

Each is a run of train.py by the recipes `unet_small` and `deeplab_small`, once a seed, on the package's composed_masks:
8,000 training scenes of real garments and digits, 1,000 test scenes of other garments and digits, 16 classes. DeepLab
on MobileNet v2 starts from a classifier of single things, the package's 8,000 of training, made once for all, and has
six epochs for the others' four. Figures are those of summary.json, mean and standard deviation over seeds; a run that
is in DIR is not made again, one that was killed goes on.
"""

import sys
from pathlib import Path

from benchmarks.captioning import CLASSIFIER, write_things
from benchmarks.contender import Rows
from benchmarks.report import command_line, write
from benchmarks.runs import spread, trained

HEADS = {"unet_small": "U-Net", "deeplab_small": "DeepLab v3+"}
# What a thing is, DeepLab's head learns by the last map alone, and through that so slight a network learns slowly.
STARTED = "deeplab_small, mobilenet_v2"
SLOWER = ("--dropout", "0", "--optimizer.lr", "2e-3", "--epochs", "6")
FIGURES = {"mean_iou": "mean IoU", "mean_dice": "mean Dice", "accuracy": "pixels"}


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing, writes the report; returns the exit code."""
    from cnn_jax.data import fashion_5k

    parser = command_line(__doc__)
    parser.add_argument("--dir", required=True, help="where runs are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="the recipes' own if not given")
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenet_v2"])
    options = parser.parse_args(argv)
    more = () if options.epochs is None else ("--epochs", str(options.epochs))
    folder = Path(options.dir)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict]] = {}
    for seed in range(options.seeds):  # all of them once, then again: an early end leaves something of each
        for model in options.models:
            for recipe in HEADS:
                name, out = f"{recipe}, {model}", folder / f"{recipe}-{model}-{seed}"
                own = ("--save-every", "200", "--recipe", recipe, "--model", model, "--seed", str(seed))
                if name == STARTED:
                    write_things(folder / "things.npz", fashion_5k.read_split("train"), copies=1)
                    data = ("--dataset", str(folder / "things.npz"), "--epochs", "10")
                    trained(folder / "things", *CLASSIFIER, "--model", model, *data)
                    own += ("--start", str(folder / "things"), *SLOWER)
                summary = trained(out, *own, *more)
                found.setdefault(name, []).append(summary)
                print(f"{out}: mean IoU {summary['test_mean_iou']:.4f}", file=sys.stderr)
    rows: Rows = [("head", "backbone", "parameters", *FIGURES.values())]
    for model in options.models:
        for recipe, head in HEADS.items():
            runs = found[f"{recipe}, {model}"]
            cells = (spread([100 * run[f"test_{key}"] for run in runs]) for key in FIGURES)
            rows.append((head, model, f"{runs[0]['params']:,}", *cells))
    classes = list(next(iter(found.values()))[0]["test_iou"])
    each: Rows = [("class", *(f"{HEADS[name.split(', ')[0]]}, {name.split(', ')[1]}" for name in found))]
    each += [(c, *(spread([100 * run["test_iou"][c] for run in runs]) for runs in found.values())) for c in classes]
    tables = {"All classes": rows, "IoU of each class": each}
    notes = [f"In percent, 1,000 unseen scenes, {options.seeds} seeds: mean and standard deviation."]
    if STARTED in found:
        notes.append(f"{STARTED}: from a classifier of single things, with {' '.join(SLOWER)}.")
    write(options.out, "segmentation", "Segmentation of composed scenes", tables, found, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
