"""`cnn-jax evaluate`: published weights or a run of train.py, on a split of a data set, by a protocol."""

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from cnn_jax import distributed, visualize
from cnn_jax.atomic import write_json, write_whole
from cnn_jax.commands.network import enough_memory, open_network, open_run
from cnn_jax.data import open_dataset
from cnn_jax.data.decode import Interpolation
from cnn_jax.errors import UserError, first_line, of_system
from cnn_jax.evaluation.evaluate import Records, evaluate_dataset
from cnn_jax.evaluation.metrics import calibration_error, class_accuracy, confusion_matrix, summarize
from cnn_jax.evaluation.protocols import Protocol, make_protocol, predict
from cnn_jax.models import model_info
from cnn_jax.models.fold import fold_batch_norm
from cnn_jax.tables import aligned

WORST = 5  # classes that are shown


def evaluate_command(
    *,
    name: str,
    weights: str | None,
    folder: str | None,
    dataset: str | None,
    split: str | None,
    data_dir: str | None,
    protocol: str | None,
    batch_size: int,
    image_size: int | None,
    resize: int | None,
    crop: float | None,
    interpolation: Interpolation | None,
    bad_images: Literal["error", "skip"],
    out: Path | None,
) -> str:
    """What a network finds in a split: count, accuracies, likelihood, calibration, the worst classes.

    `name` and `weights` are open_network's, or `folder` is that of a run that trained `name`: its parameters after the
    last step, to which its summary.json belongs. Images are seen as the publisher of the weights tested them, or as the
    run does, but for what is given of `image_size`, `resize`, `crop` and `interpolation`. Data set and split are the
    run's if not given. Writes metrics.json, classes.csv, confusion.png and reliability.png into `out`.

    Raises:
      UserError: anything of this that is not there or does not fit together.
    """
    distributed.start()
    seen: dict[str, Any] = {"image_size": image_size, "resize": resize, "crop": crop, "interpolation": interpolation}
    if folder is not None:
        network, config = open_run(folder, "latest", **seen)
        if network.name != model_info(name).name:
            raise UserError(f"the run in {folder} trained {network.name}, not {name}")
        dataset, split, data_dir = dataset or config.dataset, split or config.test_split, data_dir or config.data_dir
    elif dataset is None:
        raise UserError("--dataset says on what to evaluate; only a --run has one of its own")
    else:
        network = open_network(name, weights, as_tested=True, **seen)
    images = open_dataset(dataset, split or "test", data_dir)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise of_system(f"cannot write to --out {out}", error) from None
    classes = network.num_classes
    if classes != len(images.classes):
        raise UserError(f"{network.source} tells {classes} classes apart, {dataset} has {len(images.classes)}")

    protocol = protocol or ("fit" if images.fixed_size else "center")
    if protocol == "fit" and not images.fixed_size:
        raise UserError(f"--protocol fit takes images of one size, those of {dataset} differ; center is usual for them")
    how = make_protocol(protocol, network.seen.size[0], network.seen.resize, network.seen.interpolation)
    for option in (option for option in ("resize", "crop") if seen[option] is not None):
        if not how.takes_resize:
            raise UserError(f"--{option} means nothing to --protocol {protocol}: its scales are given")
        if network.seen.resize < how.size and not how.dense:
            raise UserError(f"--{option} {seen[option]} is less than the {how.size} pixels of the crop")
    model = network.model
    if how.dense and hasattr(model, "dense"):
        model = model.clone(dense=True)
    model, variables = fold_batch_norm(model, network.variables)
    mean, std = network.seen.mean, network.seen.std
    step = partial(predict, apply=model.apply, protocol=how, mean=mean, std=std)
    check_sizes(name, protocol, how, step, variables, len(mean))

    with enough_memory(batch_size):
        records = evaluate_dataset(
            jax.jit(step), variables, images, how, channels=len(mean), batch_size=batch_size, bad_images=bad_images
        )
    summary = summarize(records)
    figures = {
        "model": network.name,
        **({"run": folder} if folder else {"weights": network.source}),
        "dataset": dataset,
        "split": images.split,
        "protocol": protocol,
        "image_size": how.size,
        "resize": network.seen.resize,
        "interpolation": network.seen.interpolation,
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
