"""`karpathy:FILE.json`: images and sentences, as Karpathy & Fei-Fei's (1412.2306) files of COCO and Flickr."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cnn_jax.data.dataset import END, SPECIAL, UNKNOWN, Collection, Record
from cnn_jax.data.folder import printable, read_file
from cnn_jax.errors import UserError, first_line, of_system

LEAST = 5  # times that a word is seen in training to be one of the vocabulary (1411.4555, sec. 4.3.1)
JOINED = {"restval": "train"}  # COCO's validation images that its tests leave over, by custom trained on too


@dataclass(frozen=True, eq=False)
class CaptionedFiles:
    """Image files by their paths, with the numbers of their words, (N, R, T) int32."""

    files: tuple[str, ...]
    sentences: np.ndarray
    remote: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> list[Record]:
        return [(read_file(self.files[i]), self.sentences[i]) for i in indices]

    def place(self, index: int) -> str:
        return printable(self.files[index])


def open_karpathy(spec: str) -> Collection:
    """Images and sentences of a file such as dataset_flickr8k.json or dataset_coco.json; "restval" is part of "train".

    An image lies beside the file: in its folder, as FILEPATH/FILENAME if it has a "filepath", as images/FILENAME or as
    FILENAME. Its "tokens" are the words, as they stand there. A word that the training sentences have LEAST times has a
    number, the more frequent first; `FILE.json?least=2` says another limit, for a small set. R is the most sentences
    that an image has, T the most words, the end included.

    Raises:
      UserError: no such file, or one of another form; an image that lies nowhere, or that has no sentence; no word is
        frequent enough.
    """
    path, _, options = spec.partition("?")
    name, _, least = options.partition("=")
    if options and not (name == "least" and least.isdecimal() and int(least) > 0):
        raise UserError(f"karpathy:{spec} is not like karpathy:FILE.json or karpathy:FILE.json?least=2")
    file = Path(path).expanduser()
    images = _images(file)
    splits = {
        split: [each for each in images if each["split"] == split] for split in {each["split"] for each in images}
    }
    if "train" not in splits:
        raise UserError(
            f"{printable(file)} has no split train, whose words make the vocabulary, but {', '.join(splits)}"
        )
    seen = Counter(word for image in splits["train"] for sentence in image["sentences"] for word in sentence)
    limit = int(least) if least else LEAST
    words = sorted((word for word, times in seen.items() if times >= limit), key=lambda word: (-seen[word], word))
    if not words:
        raise UserError(
            f"{printable(file)}: no word is seen {limit} times in training; ?least=1 behind its name takes any"
        )
    numbers = {word: number for number, word in enumerate(words, start=len(SPECIAL))}
    shape = (
        max(len(image["sentences"]) for image in images),
        max(len(sentence) for image in images for sentence in image["sentences"]) + 1,
    )
    openers = {split: partial(_open_split, file.parent, several, numbers, shape) for split, several in splits.items()}
    classes = (*SPECIAL, *map(printable, words))
    return Collection(f"karpathy:{spec}", classes, (None, None, 3), openers, "captions", shape)


def _images(file: Path) -> list[dict[str, Any]]:
    """`file` (path), `split` and `sentences` (lists of words) of each image."""
    told = 'a Karpathy file, {"images": [{"filename", "split", "sentences": [{"tokens"}]}]}'
    try:
        read = json.loads(file.read_bytes())
    except OSError as error:
        raise of_system(f"cannot read {printable(file)}", error) from None
    except ValueError as error:
        raise UserError(f"{printable(file)} is no JSON ({first_line(error)})") from None
    images = read.get("images") if isinstance(read, dict) else None
    if not isinstance(images, list) or not images:
        raise UserError(f"{printable(file)} has no images; what is read is {told}")
    found = []
    for number, image in enumerate(images):
        try:
            name, split, folder = image["filename"], image["split"], image.get("filepath", "")
            sentences = [sentence["tokens"] for sentence in image["sentences"]]
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{printable(file)}: image {number} is not as in {told}") from None
        words = [word for sentence in sentences if isinstance(sentence, list) for word in sentence]
        texts = all(isinstance(text, str) and "\0" not in text for text in (name, split, folder, *words))
        if not texts or not all(isinstance(sentence, list) for sentence in sentences):
            raise UserError(f"{printable(file)}: image {number} is not as in {told}")
        sentences = [sentence for sentence in sentences if sentence]
        if not sentences:
            raise UserError(f"{printable(file)}: {name} has no sentence")
        split = JOINED.get(split, split)
        found.append({"file": os.path.join(folder, name), "name": name, "split": split, "sentences": sentences})
    return found


def _open_split(
    folder: Path, images: list[dict[str, Any]], numbers: dict[str, int], shape: tuple[int, int]
) -> CaptionedFiles:
    sentences = np.zeros((len(images), *shape), np.int32)
    for image, rows in zip(images, sentences, strict=True):
        for sentence, row in zip(image["sentences"], rows, strict=False):
            row[: len(sentence) + 1] = [*(numbers.get(word, UNKNOWN) for word in sentence), END]
    return CaptionedFiles(tuple(_file(folder, image) for image in images), sentences)


def _file(folder: Path, image: dict[str, Any]) -> str:
    places = [folder / image["file"], folder / "images" / image["name"], folder / image["name"]]
    for place in dict.fromkeys(places):
        if place.is_file():
            return str(place)
    raise UserError(f"{image['name']} is neither of {', '.join(printable(place) for place in dict.fromkeys(places))}")
