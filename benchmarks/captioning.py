"""Captions of composed scenes: with attention and without, greedy and by a beam of three.

    cnn-jax prepare fashion_mnist --data-dir DIR [--from-files FILES]
    uv run python -m benchmarks.captioning --dir DIR [--seeds 3] [--no-attention-epochs 4] [--attention-epochs 3]

As in both papers the network is a classifier first, and fixed while the decoder is new. It learns the twenty classes of
single things, 60,000 garments of Fashion-MNIST and the package's 4,000 digits, once for all. Then the recipes
show_and_tell_small and show_attend_tell_small learn 32,000 scenes of such a garment and such a digit, once a seed: the
decoder alone, then everything. The 1,000 scenes of composed_captions' test hold things that neither has seen, and its
sentences none of training's.
Sentences of the last checkpoint count as right if they are one of the scene's two, word by word; BLEU and CIDEr are the
COCO server's. Figures are means and standard deviations over seeds; a run that is in DIR/captioning is not made again,
one that was killed goes on.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.contender import Rows
from benchmarks.report import command_line, write
from benchmarks.runs import spread, trained
from benchmarks.transfer import clothes

RECIPES = {"no attention": ("show_and_tell_small", 4), "attention": ("show_attend_tell_small", 3)}  # and epochs
SCENES = 32_000
NETWORK = ("--model", "resnet18", "--model-options", '{"width": 32, "stem_width": 32}')  # the recipes'
ADAMW = ("--optimizer.kind", "adamw", "--optimizer.lr", "3e-3", "--optimizer.weight-decay", "0.02")
CLASSIFIER = ("--recipe", "finetune", "--image-size", "32", *ADAMW)  # of single things
MOVED = ("--augment.rotate", "10", "--augment.scale", "0.1", "--augment.shear", "0.1")
SEARCHES = {"greedy": 1, "beam 3": 3}
FIGURES = ("exact", "bleu1", "bleu2", "bleu3", "bleu4", "cider")
BATCH = 100


def write_things(file: Path, trained_on: tuple[np.ndarray, np.ndarray], copies: int) -> None:
    """Single garments and digits, 28x28 in the middle of 32x32, three equal channels, as one set of twenty classes.

    Training has these garments (N, 28, 28, 1) with their labels (N,), and each digit of the package `copies` times. The
    test is of the package's things, which are those of the scenes.
    """
    from cnn_jax.data import fashion_5k, mnist_5k

    arrays = {}
    for split, (garments, kinds), times in (
        ("train", trained_on, copies),
        ("test", fashion_5k.read_split("test"), 1),
    ):
        digits, numbers = (np.concatenate([array] * times) for array in mnist_5k.read_split(split))
        things = np.pad(np.concatenate([garments, digits]), ((0, 0), (2, 2), (2, 2), (0, 0)))
        arrays[f"x_{split}"] = np.repeat(things, 3, -1)  # as scenes are read from files
        arrays[f"y_{split}"] = np.concatenate([kinds, numbers + 10])
    np.savez(file, **arrays)


def write_scenes(folder: Path, trained_on: tuple[np.ndarray, np.ndarray], count: int) -> Path:
    """`count` scenes of these garments and composed_captions' test, with their sentences, as Karpathy has them."""
    from PIL import Image

    from cnn_jax.captioning import sentence
    from cnn_jax.data import mnist_5k
    from cnn_jax.data.composed import SPLITS, VOCABULARY, Captions, Things, by_class

    things = by_class(*trained_on), by_class(*mnist_5k.read_split("train"))

    class Training(Captions):
        def things(self) -> Things:
            return things

    (folder / "images").mkdir(parents=True, exist_ok=True)
    images = []
    for split, scenes in ("train", Training("train", count)), ("test", Captions("test", SPLITS["test"])):
        for number, (scene, label) in enumerate(scenes.read(range(len(scenes)))):
            name = f"{split}-{number}.png"
            Image.fromarray(scene[..., 0]).save(folder / "images" / name)
            tokens = [sentence(row, VOCABULARY, reference=True).split() for row in label]
            images.append({"filename": name, "split": split, "sentences": [{"tokens": words} for words in tokens]})
    (file := folder / "scenes.json").write_text(json.dumps({"images": images}))
    return file


def scores(out: Path, beam: int) -> dict[str, float]:
    """FIGURES of a run's last checkpoint on all test scenes, exact matches in percent."""
    import jax

    from cnn_jax import open_dataset
    from cnn_jax.captioning import PAD, beam_search, caption_scores, exact_match, sentence
    from cnn_jax.data.views import middle
    from cnn_jax.training.program import evaluation_view
    from cnn_jax.training.trained import load_run

    model, variables, task, classes, _ = load_run(out, "latest")
    test = open_dataset(task.config.dataset, task.config.test_split)
    view = partial(middle, channels=3, key=None, **evaluation_view(task.config))  # as the run has been tested
    search = jax.jit(partial(beam_search, model, length=test.label_shape[1], beam=beam))
    guesses = []
    for at in range(0, len(test), BATCH):
        images = np.stack([view(image) for image, _ in test.read(range(at, at + BATCH))])
        guesses.append(np.asarray(search(variables, task.preprocess(images, None)).tokens))
    found = np.concatenate(guesses)
    told = [[sentence(row, classes, reference=True) for row in label if row[0] != PAD] for label in test.labels]
    exact = 100 * float(np.mean(exact_match(found, test.labels)))
    return {"exact": exact} | caption_scores([sentence(guess, classes) for guess in found], told)


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing, writes the report; returns the exit code."""
    parser = command_line(__doc__)
    parser.add_argument("--dir", required=True, help="of the prepared data set; runs are kept there")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--things-epochs", type=int, default=10, help="of the classifier")
    parser.add_argument("--decoder-epochs", type=int, default=1, help="of the decoder alone")
    for kind, (_, epochs) in RECIPES.items():
        parser.add_argument(f"--{kind.replace(' ', '-')}-epochs", type=int, default=epochs, help="of everything, then")
    options = parser.parse_args(argv)
    folder = Path(options.dir) / "captioning"
    folder.mkdir(parents=True, exist_ok=True)
    garments = clothes("train", options.dir)
    write_things(folder / "things.npz", garments, copies=4)  # as there are fifteen garments to one digit
    scenes = ("--dataset", f"karpathy:{write_scenes(folder / 'scenes', garments, SCENES)}", "--schedule.warmup", "0.25")
    data = ("--dataset", str(folder / "things.npz"), "--epochs", str(options.things_epochs))
    things = trained(folder / "things", *CLASSIFIER, *NETWORK, *data)
    print(f"{100 * things['test_top1']:.2f} % of the things", file=sys.stderr)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for kind, (recipe, _) in RECIPES.items():
            out, common = folder / f"{recipe}-{seed}", ("--recipe", recipe, "--seed", str(seed), *MOVED, *scenes)
            alone = ("--freeze-until", "decoder", "--epochs", str(options.decoder_epochs))
            trained(out.with_name(f"{out.name}-decoder"), *common, "--start", str(folder / "things"), *alone)
            epochs = str(getattr(options, f"{kind.replace(' ', '_')}_epochs"))
            begun = ("--start", str(out.with_name(f"{out.name}-decoder")), "--optimizer.lr", "1e-3")
            trained(out, *common, *begun, "--epochs", epochs)
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
