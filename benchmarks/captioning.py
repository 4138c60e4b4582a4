"""Captions of composed scenes: with attention and without, greedy and by a beam of three.

    uv run python -m benchmarks.captioning --dir DIR [--seeds 3] [--things-epochs 20] [OPTIONS OF train.py ...]

As in both papers the network is a classifier first: of the 8,000 single garments and digits in the package that are for
training, twenty classes, once for all. Then the recipes show_and_tell_small and show_attend_tell_small learn scenes of
a garment and a digit, once a seed; other options, such as --epochs 8, go to each of these runs. The 1,000 scenes of the
test hold things that neither has seen, and its sentences none of training's. Sentences of the last checkpoint count as
right if they are one of the scene's two, word by word; BLEU and CIDEr are the COCO server's. Figures are means and
standard deviations over seeds; a run that is in DIR is not made again, one that was killed goes on.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.contender import Rows
from benchmarks.report import command_line, write
from benchmarks.runs import spread, trained

RECIPES = {"no attention": "show_and_tell_small", "attention": "show_attend_tell_small"}
SEARCHES = {"greedy": 1, "beam 3": 3}
FIGURES = ("exact", "bleu1", "bleu2", "bleu3", "bleu4", "cider")
BATCH = 100


def write_things(file: Path) -> None:
    """Single garments and digits, 28x28 in the middle of 32x32, as one set of twenty classes."""
    from cnn_jax.data import fashion_5k, mnist_5k

    arrays = {}
    for split in ("train", "test"):
        (garments, kinds), (digits, numbers) = fashion_5k.read_split(split), mnist_5k.read_split(split)
        arrays[f"x_{split}"] = np.pad(np.concatenate([garments, digits]), ((0, 0), (2, 2), (2, 2), (0, 0)))
        arrays[f"y_{split}"] = np.concatenate([kinds, numbers + 10])
    np.savez(file, **arrays)


def scores(out: Path, beam: int) -> dict[str, float]:
    """FIGURES of a run's last checkpoint on all test scenes, exact matches in percent."""
    import jax

    from cnn_jax import open_dataset
    from cnn_jax.captioning import PAD, beam_search, caption_scores, exact_match, sentence
    from cnn_jax.training.trained import load_run

    model, variables, task, classes, _ = load_run(out, "latest")
    test = open_dataset(task.config.dataset, task.config.test_split)
    search = jax.jit(partial(beam_search, model, length=test.label_shape[1], beam=beam))
    guesses = []
    for at in range(0, len(test), BATCH):
        images = task.preprocess(test.images[at : at + BATCH], None)
        guesses.append(np.asarray(search(variables, images).tokens))
    found = np.concatenate(guesses)
    told = [[sentence(row, classes, reference=True) for row in label if row[0] != PAD] for label in test.labels]
    exact = 100 * float(np.mean(exact_match(found, test.labels)))
    return {"exact": exact} | caption_scores([sentence(guess, classes) for guess in found], told)


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing, writes the report; returns the exit code."""
    parser = command_line(__doc__)
    parser.add_argument("--dir", required=True, help="where runs are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--things-epochs", type=int, default=20, help="of the classifier")
    options, others = parser.parse_known_args(argv)
    folder = Path(options.dir)
    folder.mkdir(parents=True, exist_ok=True)
    network = ("--model", "resnet18", "--model-options", '{"width": 24, "stem_width": 32}')  # the recipes'
    write_things(folder / "things.npz")
    classifier = ("--recipe", "finetune", *network, "--image-size", "32", "--dataset", str(folder / "things.npz"))
    adamw = ("--optimizer.kind", "adamw", "--optimizer.lr", "3e-3", "--optimizer.weight-decay", "0.02")
    trained(folder / "things", *classifier, *adamw, "--epochs", str(options.things_epochs))
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for kind, recipe in RECIPES.items():
            out = folder / f"{recipe}-{seed}"
            trained(out, "--recipe", recipe, "--start", str(folder / "things"), "--seed", str(seed), *others)
            for search, beam in SEARCHES.items():
                found.setdefault(f"{kind}, {search}", []).append(scores(out, beam))
                print(f"seed {seed}, {kind}, {search}: {found[f'{kind}, {search}'][-1]}", file=sys.stderr)

    def cell(of_seeds: list[dict[str, float]], figure: str) -> str:
        return spread([each[figure] for each in of_seeds], {"exact": 1, "cider": 2}.get(figure, 3))

    rows: Rows = [("decoder", "exact (%)", *(f"BLEU-{n}" for n in range(1, 5)), "CIDEr")]
    rows += [(name, *(cell(each, figure) for figure in FIGURES)) for name, each in found.items()]
    note = f"1,000 test scenes of unseen compositions, {options.seeds} seeds, mean and standard deviation."
    write(options.out, "captioning", "Captions of composed scenes", {"": rows}, found, notes=(note,))
    return 0


if __name__ == "__main__":
    sys.exit(main())
