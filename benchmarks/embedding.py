"""Embeddings of classes that were never trained on: four losses, and what an untrained network and bare pixels give.

    cnn-jax prepare fashion_mnist --data-dir DIR [--from-files FILES]
    uv run python -m benchmarks.embedding --dir DIR [--model lenet5_modern] [--losses ...] [--seeds 3]

A network learns seven classes of Fashion-MNIST by the recipe `embedding`, once a loss and seed, each a run of train.py.
Tested are the 3,000 test images of the other three, on 6,000 pairs that are the same for all; a run that is in
DIR/embedding is not made again. Either choice of unseen classes, a kind of shoes, an upper garment and what is neither,
was made before anything was measured with it.
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.contender import Rows
from benchmarks.report import command_line, write
from benchmarks.runs import spread, trained

RECIPE = "embedding"
UNSEEN = {"Trousers, pullovers, sneakers": ("1", "2", "7"), "Sandals, shirts, bags": ("5", "6", "8")}
LOSSES = {
    "contrastive": ("contrastive",),
    "triplet": ("triplet",),
    "triplet-hard": ("triplet", "--embed.mining", "hard"),
    "supcon": ("supcon",),
    "arcface": ("arcface",),
    "arcface-norm": ("arcface", "--embed.batch-norm"),
}
TITLES = {
    "pixels": "pixels",
    "untrained": "untrained",
    "contrastive": "contrastive (siamese)",
    "triplet": "triplet, semi-hard",
    "triplet-hard": "triplet, batch-hard",
    "supcon": "supervised contrastive",
    "arcface": "ArcFace",
    "arcface-norm": "ArcFace, batch norm last",
}
FIGURES = {
    "accuracy": "accuracy",
    "VAL@FAR=0.001": "val",
    "AUC": "auc",
    "equal error rate": "eer",
    "recall@1": "recall1",
}


def untrained(model: str, classes: tuple[str, ...], prepared: str, seeds: int) -> dict[str, list[dict]]:
    """What the networks of the runs give before their first step, and the images' pixels, as summaries."""
    import jax

    from cnn_jax import open_dataset
    from cnn_jax.recipes import RECIPES
    from cnn_jax.tasks import make_task

    tested = open_dataset("fashion_mnist", "test", prepared).of_classes(classes)
    task = make_task(replace(RECIPES[RECIPE], model=model), len(tested.classes), tested.shape[2])
    network, images = task.model(), tested.images

    def found(vectors: np.ndarray) -> dict:
        return task.summarize({"embedding": vectors, "label": tested.labels}, tested)

    @jax.jit
    def embed(variables: dict, batch: np.ndarray) -> jax.Array:
        return network.apply(variables, task.preprocess(batch, None), train=False)

    networks = []
    for seed in range(seeds):
        key, _ = jax.random.split(jax.random.key(seed))  # as Program.init
        variables = jax.jit(partial(network.init, train=False))(key, task.preprocess(images[:1], None))
        parts = [np.asarray(embed(variables, images[at : at + 500])) for at in range(0, len(images), 500)]
        networks.append(found(np.concatenate(parts)))
    return {"pixels": [found(images.reshape(len(images), -1))], "untrained": networks}


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing, writes the report; returns the exit code."""
    parser = command_line(__doc__)
    parser.add_argument("--dir", required=True, help="of the prepared data set; runs are kept there")
    parser.add_argument("--model", default="lenet5_modern")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=[*LOSSES])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--split", default="train[:40%]", help="what is trained on, of seven classes")
    options = parser.parse_args(argv)
    folder = Path(options.dir) / "embedding"
    folder.mkdir(parents=True, exist_ok=True)
    data = ("--dataset", "fashion_mnist", "--data-dir", options.dir, "--train-split", options.split)
    tables, results = {}, {}
    for title, unseen in UNSEEN.items():
        found = results[title] = untrained(options.model, unseen, options.dir, options.seeds)
        classes = ("--train-classes", *(str(c) for c in range(10) if str(c) not in unseen), "--test-classes", *unseen)
        for name in options.losses:
            for seed in range(options.seeds):
                run = (*data, *classes, "--model", options.model, "--epochs", str(options.epochs), "--seed", str(seed))
                out = folder / f"{options.model}-{''.join(unseen)}-{name}-{seed}"
                found.setdefault(name, []).append(trained(out, "--recipe", RECIPE, *run, "--embed.loss", *LOSSES[name]))
                print(f"{title}, {name}, seed {seed}: {found[name][-1]['test_accuracy']:.2%}", file=sys.stderr)
        rows: Rows = [("trained by", *FIGURES)]
        for name, runs in found.items():
            columns = [[100 * run[f"test_{key}"] for run in runs] for key in FIGURES.values()]
            rows.append((TITLES[name], *map(spread, columns)))
        tables[title] = rows
    notes = (
        f"In percent, on 3,000 images of three classes that were not trained on, {options.seeds} seeds, mean and "
        f"standard deviation; {options.epochs} epoch(s) of the seven other classes of {options.split}.",
    )
    title = f"Embeddings of unseen garments by {options.model}"
    write(options.out, f"embedding_{options.model}", title, tables, results, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
