"""`cnn-jax evaluate`: published weights or a run of train.py, on a split of a data set, by a protocol."""

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from cnn_jax import distributed, visualize
from cnn_jax.atomic import write_json, write_whole
from cnn_jax.data import open_dataset
from cnn_jax.errors import UserError, first_line, of_system
from cnn_jax.evaluation.evaluate import Records, evaluate_dataset
from cnn_jax.evaluation.metrics import calibration_error, class_accuracy, confusion_matrix, summarize
from cnn_jax.evaluation.protocols import Protocol, make_protocol, predict
from cnn_jax.models import create_model, model_info
from cnn_jax.models.fold import fold_batch_norm
from cnn_jax.recipes import Recipe
from cnn_jax.recipes.configuration import override, read_json
from cnn_jax.storage import place
from cnn_jax.tables import aligned
from cnn_jax.training.checkpoint import load_variables
from cnn_jax.training.program import network_options
from cnn_jax.weights import import_state_dict, read_state_dict

WORST = 5  # classes that are shown


def evaluate_command(
    *,
    name: str,
    weights: Path | None,
    folder: str | Path | None,
    dataset: str | None,
    split: str | None,
    data_dir: str | None,
    protocol: str | None,
    batch_size: int,
    image_size: int | None,
    resize: int | None,
    bad_images: Literal["error", "skip"],
    out: Path | None,
) -> str:
    """What a network finds in a split: count, accuracies, likelihood, calibration, the worst classes.

    One of `weights`, a file that read_state_dict reads, and `folder`, a run's, is given. A run's
    are the parameters after its last step, to which its summary.json belongs; what is not given of
    data set, split and image size is the run's. Writes metrics.json, classes.csv, confusion.png and
    reliability.png into `out`.

    Raises:
      UserError: anything of this that is not there or does not fit together.
    """
    distributed.start()
    info = model_info(name)
    if folder is not None:
        config = read_run(folder)
        if config.model != name:
            raise UserError(f"the run in {folder} trained {config.model}, not {name}")
        if config.seeds > 1:
            raise UserError(f"the run in {folder} trained {config.seeds} seeds side by side; its summary.json has each")
        variables = load_variables(folder, "latest")
        dataset, split = dataset or config.dataset, split or config.test_split
        data_dir, image_size = data_dir or config.data_dir, image_size or config.image_size
        options = {"dtype": jnp.dtype(config.dtype)} | network_options(config)
    else:
        assert weights is not None
        variables, options = import_state_dict(name, read_state_dict(weights)), {}
    if dataset is None:
        raise UserError("--dataset says on what to evaluate; only a --run has one of its own")
    images = open_dataset(dataset, split or "test", data_dir)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise of_system(f"cannot write to --out {out}", error) from None

    shapes = {path: values.shape for path, values in flatten_dict(variables["params"]).items()}
    classes = next((shape[-1] for path, shape in shapes.items() if "head" in path), info.num_classes)
    if classes != len(images.classes):
        raise UserError(f"{weights or folder} tells {classes} classes apart, {dataset} has {len(images.classes)}")
    channels = shapes[*info.structure.layers[0].path.split("/"), "kernel"][2]

    protocol = protocol or ("fit" if images.fixed_size else "center")
    if protocol == "fit" and not images.fixed_size:
        raise UserError(f"--protocol fit takes images of one size, those of {dataset} differ; center is usual for them")
    size = image_size or info.input_size[0]
    how = make_protocol(protocol, size, resize, info.crop, info.interpolation)
    model = create_model(name, num_classes=classes, **options)
    if how.dense and hasattr(model, "dense"):
        model = model.clone(dense=True)
    model, variables = fold_batch_norm(model, variables)
    mean, std = info.normalization(channels)
    step = partial(predict, apply=model.apply, protocol=how, mean=mean, std=std)
    check_sizes(name, protocol, how, step, variables, channels)

    try:
        records = evaluate_dataset(
            jax.jit(step), variables, images, how, channels=channels, batch_size=batch_size, bad_images=bad_images
        )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"the device has not memory enough for --batch-size {batch_size}; take a smaller one") from None
    summary = summarize(records)
    figures = {
        "model": name,
        **({"run": str(folder)} if folder else {"weights": str(weights)}),
        "dataset": dataset,
        "split": images.split,
        "protocol": protocol,
        "count": summary["test_count"],
        "skipped": len(images) - summary["test_count"],
        "top1": summary["test_top1"],
        "top5": summary["test_top5"],
        "nll": summary["test_loss"],
        "calibration_error": calibration_error(records["confidence"], records["top1"]),
    }
    confusion = confusion_matrix(records["label"], records["guess"], classes)
    if not distributed.first():
        return f"process 0 tells what {jax.process_count()} processes found"
    written = "" if out is None else f"\n{out}: {write_evaluation(out, figures, confusion, images.classes, records)}"
    return report(figures, confusion, images.classes) + written


def read_run(folder: str | Path) -> Recipe:
    """The configuration of a run, from its config.json.

    Raises:
      UserError: there is none, or it is not one.
    """
    path = place(folder) / "config.json"
    values = read_json(path)
    for key in ("recipe", "data"):  # where the values came from, and what the images were
        values.pop(key, None)
    try:
        return override(Recipe(model=""), values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def check_sizes(name: str, protocol: str, how: Protocol, step, variables, channels: int) -> None:
    """Raises a UserError if the network does not take the protocol's views."""
    try:
        views = how.views(np.zeros((how.size, how.size, channels), np.uint8))
        like = [jax.ShapeDtypeStruct((1, *group.shape), np.uint8) for group in views]
        jax.eval_shape(step, variables, like, jax.ShapeDtypeStruct((1,), np.int32))
    except Exception as error:  # a map shrank below a pixel, or a layer met a size it was not made for
        raise UserError(f"{name} does not take the views of {protocol} ({first_line(error)})") from error


def report(figures: dict, confusion: np.ndarray, classes: Sequence[str]) -> str:
    """The figures in words, and the classes that are recognised worst."""
    accuracy, images = class_accuracy(confusion), confusion.sum(1)
    others = np.where(np.eye(len(classes), dtype=bool), 0, confusion)
    rows: list[tuple] = [("worst classes", "images", "top-1 %", "most often taken for")]
    for row in np.lexsort((-images, accuracy))[: min(WORST, np.count_nonzero(images))]:
        most = int(others[row].argmax())
        taken = f"{classes[most]} ({others[row, most]})" if others[row, most] else None
        rows.append((classes[row], int(images[row]), f"{100 * accuracy[row]:.1f}", taken))
    skipped = f", {figures['skipped']:,} bad ones left out" if figures["skipped"] else ""
    return (
        f"{figures['model']} on {figures['dataset']} {figures['split']}, {figures['protocol']}: "
        f"{figures['count']:,} images{skipped}\n"
        f"top-1 {figures['top1']:.2%}, top-5 {figures['top5']:.2%}, NLL {figures['nll']:.4f} nats, "
        f"calibration error {figures['calibration_error']:.2%}\n{aligned(rows)}"
    )


def write_evaluation(out: Path, figures: dict, confusion: np.ndarray, classes: Sequence[str], records: Records) -> str:
    """Writes an evaluation's files over those of an earlier one; returns their names."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("class", "images", "correct", "top1"))
    for row, (label, accuracy) in enumerate(zip(classes, class_accuracy(confusion), strict=True)):
        writer.writerow((label, confusion[row].sum(), confusion[row, row], accuracy))
    write_json(out / "metrics.json", figures)
    write_whole(out / "classes.csv", table.getvalue())
    if not visualize.can_draw():
        return "metrics.json, classes.csv, no pictures (pip install matplotlib)"
    title = f"{figures['model']} on {figures['dataset']} {figures['split']}, {figures['protocol']}"
    visualize.draw_confusion(confusion, classes, out / "confusion.png", title)
    visualize.draw_reliability(records["confidence"], records["top1"], out / "reliability.png", title)
    return "metrics.json, classes.csv, confusion.png, reliability.png"
