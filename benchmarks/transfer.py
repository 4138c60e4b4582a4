"""Transfer, four cases: much or little data, a similar or a different task, beside training from scratch.

    cnn-jax prepare fashion_mnist --data-dir DIR [--from-files FILES]
    uv run python -m benchmarks.transfer --dir DIR [--images 20 100 1000] [--seeds 3] [--steps 200]

A CIFAR ResNet-20 learns the first five classes of Fashion-MNIST, once a seed, then with so many images a class the
other five (the similar task) or the ten digits of mnist_5k (the different one): from scratch, by a linear probe on
fixed features, by its last stage, as a whole at one rate and at rates that fall by 0.7 from layer to layer, and as
Keras's guide advises, the head first and then everything at 1e-5 with its running statistics kept. Each is a run of
train.py of about so many steps of 64 images, which the recipe distorts (garments are mirrored, too), but the probe,
which is solved. CutMix is for what starts from weights: it took 2 points from what starts without. That and the rates
were chosen from three each with seed 0, on 20 images of the similar task, by 5,000 training images that are in no set
(of the head alone, for Keras's, by an earlier trial). Figures are top-1 in percent on all test images of the task, mean
and standard deviation over seeds; a run that is in DIR/transfer is not made again.
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.contender import Rows
from benchmarks.report import command_line, write
from benchmarks.runs import spread, trained

MODEL, BATCH, PARTS = "resnet20_cifar", 64, 5
EPOCH = 50  # steps, at least
CUTMIX = ("--augment.cutmix", "1")
FINETUNED = {
    "last stage": ("--freeze-until", "stage3", "--optimizer.lr", "0.2", *CUTMIX),
    "whole": ("--optimizer.lr", "0.05", *CUTMIX),
    "whole, rates falling": ("--optimizer.layer-decay", "0.7", "--optimizer.lr", "0.1", *CUTMIX),
}
KERAS = "head, then whole at 1e-5"
METHODS = ("scratch", "linear probe", *FINETUNED, KERAS)


def clothes(split: str, prepared: str) -> tuple[np.ndarray, np.ndarray]:
    """All of Fashion-MNIST, images (N, 28, 28, 1) uint8 and labels (N,)."""
    from cnn_jax.data import open_dataset
    from cnn_jax.data.decode import decode

    source = open_dataset("fashion_mnist", split, prepared).source
    records = source.read(range(len(source)))
    return np.stack([decode(image, 1) for image, _ in records]), np.array([label for _, label in records])


def write_sets(folder: Path, prepared: str, counts: list[int]) -> None:
    """The first five classes of Fashion-MNIST, and for each count the others and the digits, as .npz files."""
    from cnn_jax.data import mnist_5k

    def save(name: str, count: int | None, first: int, *parts: tuple[np.ndarray, np.ndarray]) -> None:
        arrays = {}
        for split, (images, labels) in zip(("train", "test"), parts, strict=True):
            rows = np.flatnonzero((labels >= first) & (labels < first + (10 if name == "digits" else PARTS)))
            if split == "train" and count is not None:  # the first of each class
                rows = np.concatenate([rows[labels[rows] == label][:count] for label in np.unique(labels[rows])])
                rows = np.tile(rows, max(1, EPOCH * BATCH // len(rows)))  # a short epoch would mostly be tests
            arrays |= {f"x_{split}": images[rows], f"y_{split}": labels[rows] - first}
        np.savez(folder / (name if count is None else f"{name}-{count}"), **arrays)

    garments = clothes("train", prepared), clothes("test", prepared)
    digits = mnist_5k.read_split("train"), mnist_5k.read_split("test")
    save("first", None, 0, *garments)
    for count in counts:
        save("other", count, PARTS, *garments)
        save("digits", count, 0, *digits)


def top1_of(out: Path, *options: str) -> float:
    """Top-1 in percent of a run of train.py."""
    return 100 * trained(out, "--batch-size", str(BATCH), *options)["test_top1"]


def probed(start: Path, file: Path) -> float:
    """Top-1 of a linear probe on the features of a run."""
    from cnn_jax import create_model, load_variables, model_info, transfer
    from cnn_jax.data.augment import fit, normalize

    mean_, std = model_info(MODEL).normalization(1)
    variables, model = load_variables(start, "latest"), create_model(MODEL, num_classes=0)
    variables["params"].pop("head")

    def features(images: np.ndarray) -> np.ndarray:
        images = images.reshape(-1, 28, 28, 1)
        batches = (images[at : at + 500] for at in range(0, len(images), 500))
        return transfer.pooled_features(model, variables, (normalize(fit(b, (32, 32)), mean_, std) for b in batches))

    with np.load(file) as data:
        classes = int(data["y_train"].max()) + 1
        head = transfer.linear_probe(features(data["x_train"]), data["y_train"], classes)
        guess = (features(data["x_test"]) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])).argmax(1)
        return 100 * float(np.mean(guess == data["y_test"]))


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing, writes the report; returns the exit code."""
    parser = command_line(__doc__)
    parser.add_argument("--dir", required=True, help="of the prepared data set; runs are kept there")
    parser.add_argument(
        "--images", type=int, nargs="+", default=[20, 100, 1000], help="a class; of digits there are 400"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="of a run, about")
    parser.add_argument("--epochs", type=int, default=20, help="on the first five classes")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD", help="all of them")
    options = parser.parse_args(argv)
    folder = Path(options.dir) / "transfer"
    folder.mkdir(parents=True, exist_ok=True)
    write_sets(folder, options.dir, options.images)
    found: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        start = folder / f"first-{seed}"
        recipe = ("--recipe", "finetune", "--model", MODEL, "--seed", str(seed))
        whole = ("--dataset", str(folder / "first.npz"), "--epochs", str(options.epochs), "--optimizer.lr", "0.05")
        top1 = top1_of(start, *recipe, *whole, "--augment.flip")
        print(f"seed {seed}: {top1:.2f} % on the first classes", file=sys.stderr)
        for task, mirrored in (("other", ("--augment.flip",)), ("digits", ())):
            for count in options.images:
                file = folder / f"{task}-{count}.npz"
                with np.load(file) as data:
                    epochs = str(max(1, round(options.steps / (len(data["y_train"]) // BATCH))))
                common = (*recipe, "--dataset", str(file), *mirrored)
                begun = (*common, "--epochs", epochs, "--start", str(start))

                def run(method: str, *more: str) -> float:
                    return top1_of(folder / f"{task}-{count}-{seed}-{method.replace(' ', '_')}", *more)  # noqa: B023

                rates = {}
                for method in options.methods:
                    if method == "scratch":
                        rates[method] = run(method, *common, "--epochs", epochs, "--optimizer.lr", "0.05")
                    elif method == "linear probe":
                        rates[method] = probed(start, file)
                    elif method == KERAS:
                        run("head", *begun, "--freeze-until", "head", "--optimizer.lr", "0.5")
                        slow = ("--optimizer.kind", "adamw", "--optimizer.lr", "1e-5", "--freeze-norms")
                        head = folder / f"{task}-{count}-{seed}-head"
                        rates[method] = run("keras", *common, "--epochs", epochs, "--start", str(head), *slow)
                    else:
                        rates[method] = run(method, *begun, *FINETUNED[method])
                print(f"seed {seed}, {task}, {count} a class: {rates}", file=sys.stderr)
                for method, rate in rates.items():
                    found.setdefault(f"{task}, {count}, {method}", []).append(rate)
    tables = {}
    for task, title in (
        ("other", "Similar: the other five garments"),
        ("digits", "Different: ten digits, of which there are 400 a class"),
    ):
        rows: Rows = [("method", *(f"{count} a class" for count in options.images))]
        for method in options.methods:
            rows.append((method, *(spread(found[f"{task}, {count}, {method}"]) for count in options.images)))
        tables[title] = rows
    note = f"Top-1 in percent on all test images, {options.seeds} seeds, about {options.steps} steps of {BATCH} images."
    write(options.out, "transfer", "Transfer of a CIFAR ResNet-20", tables, found, notes=(note,))
    return 0


if __name__ == "__main__":
    sys.exit(main())
