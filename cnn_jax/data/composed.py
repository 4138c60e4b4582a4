"""Scenes composed of the real garments and digits in the package, with sentences or masks, of no paper.

`composed_captions`: a garment and a digit, one beside or above the other, and two sentences that say so. Which garment,
digit and relation meet in a test image, never meet in a training image. `composed_masks`: up to four things, and the
class of each pixel. Things of test images are test images of their data sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import ClassVar

import numpy as np

from cnn_jax.data import fashion_5k, mnist_5k
from cnn_jax.data.dataset import END, SPECIAL, Collection, Labels, Record

SIDE, THING = 64, 28  # pixels of a scene and of a thing in it
SPLITS = {"train": 8_000, "test": 1_000}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Sentences. Garments that are told apart at this size: not a shirt from a coat, nor a sandal from a sneaker.
GARMENTS = {1: "trouser", 2: "pullover", 3: "dress", 7: "sneaker", 8: "bag", 9: "boot"}  # by their label
RELATIONS = ("to the left of", "to the right of", "above", "below")  # an even one and the next are each other's inverse
WORDS = (*SPECIAL, "a", "an", *" ".join(RELATIONS).split(), *GARMENTS.values(), *DIGITS)
VOCABULARY = tuple(dict.fromkeys(WORDS))
LONGEST = 9  # "a sneaker to the left of an eight" and the end

# Masks: what looks alike at this size is one class.
MASKS = ("background", "top", "trouser", "dress", "shoe", "bag", *DIGITS)
FIRST_DIGIT = MASKS.index("zero")
OF_GARMENT = (1, 2, 1, 3, 1, 4, 1, 4, 5, 4)  # the class of a mask, by Fashion-MNIST's label
INK = 32  # from which grey level on a pixel belongs to its thing


Things = tuple[list[np.ndarray], list[np.ndarray]]  # of each garment and of each digit, images (N, 28, 28)


@lru_cache(maxsize=2)
def _things(split: str) -> Things:
    return by_class(*fashion_5k.read_split(split)), by_class(*mnist_5k.read_split(split))


def by_class(images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Images (N, 28, 28, 1) of ten classes as (N, 28, 28) of each."""
    return [images[labels == label, :, :, 0] for label in range(10)]


@lru_cache(maxsize=2)
def compositions(split: str) -> list[tuple[int, int, int]]:
    """(garment, digit, relation) of a split: every fifth for the test, so that each pair of them is trained."""
    every = product(range(len(GARMENTS)), range(10), range(len(RELATIONS)))
    return [each for each in every if (sum(each) % 5 == 0) == (split == "test")]


def sentence(*words: str) -> np.ndarray:
    """Numbers of words with the articles that things have, (LONGEST,) int32 with the end behind them."""
    text = " ".join(words).split()
    numbers = [VOCABULARY.index(word) for word in text] + [END]
    return np.pad(np.array(numbers, np.int32), (0, LONGEST - len(numbers)))


def _article(thing: str) -> str:
    return f"an {thing}" if thing == "eight" else f"a {thing}"


@dataclass(frozen=True)
class Scenes:
    """`length` scenes of a split, each drawn from its number alone."""

    split: str
    length: int
    remote: ClassVar[bool] = False
    name: ClassVar[str]
    labelled: ClassVar[Labels]
    label_shape: ClassVar[tuple[int, int]]

    def __len__(self) -> int:
        return self.length

    def read(self, indices: Sequence[int]) -> list[Record]:
        return [self.draw(np.random.default_rng((self.split == "test", int(i)))) for i in indices]

    def place(self, index: int) -> str:
        return f"scene {index} of {self.name}"

    def things(self) -> Things:
        """What the scenes are composed of: the package's own."""
        return _things(self.split)

    def draw(self, rng: np.random.Generator) -> Record:
        """A scene and its label."""
        raise NotImplementedError


@dataclass(frozen=True)
class Captions(Scenes):
    """(64, 64, 1) uint8 with two sentences, (2, LONGEST) int32: of the garment and of the digit."""

    name, labelled, label_shape = "composed_captions", "captions", (2, LONGEST)

    def draw(self, rng: np.random.Generator) -> Record:
        chosen = compositions(self.split)
        garment, digit, relation = chosen[rng.integers(len(chosen))]
        garments, digits = self.things()
        label = tuple(GARMENTS)[garment]
        things = [rng.choice(garments[label]), rng.choice(digits[digit])]
        first, second = things if relation % 2 == 0 else things[::-1]
        scene = np.zeros((SIDE, SIDE), np.uint8)
        near, far = rng.integers(0, 5), SIDE - THING - rng.integers(0, 5)
        for thing, along in ((first, near), (second, far)):
            across = rng.integers(8, SIDE - THING - 7)
            row, column = (across, along) if relation < 2 else (along, across)
            scene[row : row + THING, column : column + THING] = thing
        names = _article(GARMENTS[label]), _article(DIGITS[digit])
        references = (
            sentence(names[0], RELATIONS[relation], names[1]),
            sentence(names[1], RELATIONS[relation ^ 1], names[0]),
        )
        return scene[..., None], np.stack(references)


@dataclass(frozen=True)
class Masks(Scenes):
    """(64, 64, 1) uint8 with the class of each pixel, (64, 64) uint8: one to four things, that may overlap."""

    name, labelled, label_shape = "composed_masks", "mask", (SIDE, SIDE)

    def draw(self, rng: np.random.Generator) -> Record:
        garments, digits = self.things()
        scene, mask = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
        corners = rng.permutation(4)[: rng.integers(1, 5)]
        for corner in corners:
            kind = rng.integers(20)
            thing = rng.choice(garments[kind] if kind < 10 else digits[kind - 10])
            label = OF_GARMENT[kind] if kind < 10 else FIRST_DIGIT + kind - 10
            row, column = np.clip(SIDE // 2 * np.array(divmod(corner, 2)) + rng.integers(-4, 9, 2), 0, SIDE - THING)
            place = np.s_[row : row + THING, column : column + THING]
            ink = thing >= INK
            scene[place][ink], mask[place][ink] = thing[ink], label
        return scene[..., None], mask


def open_composed(name: str) -> Collection:
    """`composed_captions` or `composed_masks`."""
    kind, classes = (Captions, VOCABULARY) if name == Captions.name else (Masks, MASKS)
    openers = {split: partial(kind, split, length) for split, length in SPLITS.items()}
    return Collection(name, classes, (SIDE, SIDE, 1), openers, kind.labelled, kind.label_shape)


NAMES = (Captions.name, Masks.name)
