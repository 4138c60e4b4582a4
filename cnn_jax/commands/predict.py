"""`cnn-jax predict`: what is on photographs, line by line."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

from tqdm import tqdm

from cnn_jax.commands.network import enough_memory, open_network, open_run
from cnn_jax.data.folder import EXTENSIONS, image_files, printable
from cnn_jax.errors import UserError
from cnn_jax.models.fold import fold_batch_norm
from cnn_jax.prediction import Prediction, predict


class LeftOut(UserError):
    """Images that could not be read; what there is to say of the others has been said."""

    exit_code = 1


def predict_command(
    *,
    images: Sequence[str],
    model: str | None,
    weights: str | None,
    folder: str | None,
    top: int,
    batch_size: int,
    form: Literal["table", "json", "csv"],
) -> Iterator[str]:
    """Lines on each image, as they are found; files and folders are those of find_images.

    `model` and `weights` are open_network's, or `folder` is a run's, of which the best checkpoint is taken. A bad image
    is named on stderr and left out. If lines do not go to a terminal, stderr shows progress, if it is one.

    Raises:
      LeftOut: in the end, if there was a bad image.
      UserError: no such image or folder, no weights or run.
    """
    if not images or (model is None and folder is None):
        raise UserError(
            "say which photographs and which network: cnn-jax predict PHOTO.jpg DIR/ --model resnet50.tv_in1k "
            "(cnn-jax list --pretrained shows all), --model NAME --weights FILE, or --run DIR"
        )
    paths = find_images(images)
    if folder is not None:
        if weights is not None:
            raise UserError("--weights are those of a --model; a --run has its own")
        network, _ = open_run(folder, "best")
    else:
        network = open_network(str(model), weights)
    bad = 0
    quiet = not sys.stderr.isatty() or sys.stdout.isatty()
    with enough_memory(batch_size), tqdm(None, "predicting", len(paths), disable=quiet, unit=" images") as progress:

        def on_bad(path: str, told: str) -> None:
            nonlocal bad
            bad += 1
            progress.update()
            progress.write(f"left out: {told}", file=sys.stderr)

        def found() -> Iterator[Prediction]:
            for one in predict(
                *fold_batch_norm(network.model, network.variables),
                paths,
                network.seen,
                classes=network.classes,
                top=top,
                batch_size=batch_size,
                on_bad=on_bad,
            ):
                progress.update()
                yield one

        yield from FORMS[form](paths, found())
    if bad:
        raise LeftOut(f"{bad:,} of {len(paths):,} images could not be read and are left out")


def find_images(paths: Sequence[str]) -> list[str]:
    """The files of `paths`, and in the place of a folder the image files in it, at any depth, sorted.

    Raises:
      UserError: no such file or folder, or no image in a folder.
    """
    files = []
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f"there is no file or folder {printable(path)}")
        found = image_files(path) if os.path.isdir(path) else [path]
        if not found:
            raise UserError(f"{printable(path)} has no images ({', '.join(EXTENSIONS)})")
        files += found
    return files


def table(paths: Sequence[str], found: Iterator[Prediction]) -> Iterator[str]:
    """An image's path, and a line for each of its classes."""
    width = min(max(5, *(len(printable(path)) for path in paths)), 60)
    yield f"{'image':{width}}       %  class"
    for image, _, names, probabilities in found:
        label = printable(image)
        for name, probability in zip(names, probabilities, strict=True):
            yield f"{label:{width}}  {100 * probability:6.2f}  {name}"
            label = ""


def json_lines(paths: Sequence[str], found: Iterator[Prediction]) -> Iterator[str]:
    """An object for each image, with the fields of a Prediction."""
    del paths
    for one in found:
        shown = {"image": printable(one.image), "probabilities": [short(p) for p in one.probabilities]}
        yield json.dumps(one._asdict() | shown)


def csv_lines(paths: Sequence[str], found: Iterator[Prediction]) -> Iterator[str]:
    """A line for each class of each image."""
    del paths
    yield "image,rank,class,name,probability"
    for image, classes, names, probabilities in found:
        lines = io.StringIO()
        ranks = range(1, len(classes) + 1)
        for row in zip(ranks, classes, names, map(short, probabilities), strict=True):
            csv.writer(lines, lineterminator="\n").writerow((printable(image), *row))
        yield lines.getvalue().rstrip("\n")


def short(probability: float) -> float:
    """With six digits, which float32 has."""
    return float(f"{probability:.6g}")


FORMS = {"table": table, "json": json_lines, "csv": csv_lines}
