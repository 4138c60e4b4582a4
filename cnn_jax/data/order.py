"""Which images make up which batch: numbers alone, so that a place in the data is just a number.

The place is `seen`, the images drawn since the start of the run, those of an epoch's tail that
filled no batch included: epoch `seen // size`, image `seen % size` of that epoch's order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import UserError


@dataclass(frozen=True)
class Timeline:
    """How steps count epochs in a run over `size` images.

    Step t, counted from 0, is step `(t + shift) % steps_per_epoch` of epoch `(t + shift) //
    steps_per_epoch`. `shift` is 0 in a run that never changed its batch size, and the same at every
    step between two such changes.
    """

    size: int
    batch_size: int
    epochs: int
    shift: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.size // self.batch_size

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch - self.shift

    def epoch(self, step: int) -> float:
        """Epochs done after `step` steps."""
        return (step + self.shift) / self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether `step` steps, at least one, end with an epoch."""
        return step > 0 and (step + self.shift) % self.steps_per_epoch == 0

    def is_due(self, step: int, every: int) -> bool:
        """Whether to save after `step` steps, of which one in `every` asks for it (0: none). An epoch's last is settled
        first, and then saved anyway."""
        return every > 0 and step % every == 0 and not self.ends_epoch(step)

    def left(self, seen: int) -> Iterator[tuple[int, int]]:
        """The epochs that are left where `seen` images are drawn, each with the image of its order to go on at."""
        epoch, offset = start_of(seen, self.size, self.batch_size)
        for number in range(epoch, self.epochs):
            yield number, offset if number == epoch else 0

    def going_on(self, step: int, seen: int) -> "Timeline":
        """The same for a run that has taken `step` steps and drawn `seen` images, maybe in other batches."""
        epoch, offset = start_of(seen, self.size, self.batch_size)
        steps_left = (self.size - offset) // self.batch_size  # counted from the epoch's end, which batches share
        return replace(self, shift=(epoch + 1) * self.steps_per_epoch - (step + steps_left))


def epoch_order(seed: int, epoch: int, size: int, batch_size: int, offset: int = 0) -> np.ndarray:
    """Indices of every batch of an epoch from image `offset` on, (steps, batch_size) int32.

    A function of its arguments and of nothing before: a resumed run reads on where it was, also
    with another batch size. The images that do not fill a last batch wait for another epoch's shuffle.
    """
    left = np.random.default_rng((seed, epoch)).permutation(size)[offset:]
    steps = len(left) // batch_size
    return left[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def class_order(
    seed: int, epoch: int, labels: np.ndarray, batch_size: int, per_class: int, offset: int = 0
) -> np.ndarray:
    """The same for batches of `per_class` images each of as many different classes: (steps, batch_size) int32.

    `labels` (N,) are those of the images. Like any other an epoch draws N images, in rounds of `per_class` images of
    each class, so that classes come equally often: where all have one size, a multiple of `per_class`, every image
    comes once; else images of small classes come more often, in a class of fewer than `per_class` also in one batch.

    Images of one class stand together, and classes a batch apart at least. To that end each round shuffles them
    within either half of the classes; if a batch has more than a half, all rounds of an epoch keep one order. So a
    run goes on at any multiple of `per_class`, and in batches of another size, but for a change across that half.

    Raises:
      UserError: a batch that is not made of whole classes, or of more classes than there are.
    """
    size, (_, counts) = len(labels), np.unique(labels, return_counts=True)
    classes = len(counts)
    if batch_size % per_class or batch_size // per_class > classes:
        most = f"for {classes} classes {classes * per_class} at most"
        raise UserError(f"a batch must be a multiple of its {per_class} images a class, {most}, not {batch_size}")
    rng = np.random.default_rng((seed, epoch))
    halves = np.array_split(rng.permutation(classes), 2)
    kept = 2 * batch_size > classes * per_class
    chunks = size // per_class
    rounds = -(-chunks // classes)
    turns = [half if kept else rng.permutation(half) for _ in range(rounds) for half in halves]
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    drawn = np.stack([_drawn(rng, images, rounds, per_class) for images in members])
    order = drawn.swapaxes(0, 1)[np.repeat(np.arange(rounds), classes), np.concatenate(turns)]
    left = order[:chunks].ravel()[offset:]
    steps = len(left) // batch_size
    return left[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def _drawn(rng: np.random.Generator, images: np.ndarray, rounds: int, count: int) -> np.ndarray:
    """`count` of a class's images for each round, (rounds, count); none comes again while there are enough others."""
    whole = max(1, len(images) // count) * count
    passes = -(-rounds * count // whole)
    drawn = np.concatenate([np.resize(rng.permutation(images), whole) for _ in range(passes)])
    return drawn[: rounds * count].reshape(rounds, count)


def past_tail(seen, size: int, batch_size: int):
    """`seen`, an int or an array of one, or the next epoch's start if this epoch has no whole batch left."""
    left = size - seen % size
    return seen + left * (left < batch_size)


def start_of(seen: int, size: int, batch_size: int) -> tuple[int, int]:
    """(epoch, offset) where batches go on."""
    return divmod(past_tail(seen, size, batch_size), size)


def held_out(size: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and to validate on, both ascending, the second round(share * size) of them.

    Chosen at random, for sets that are sorted by class, but always the same: seeds of a run compare.
    """
    shuffled = np.random.default_rng(0).permutation(size)
    count = round(share * size)
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])


def evaluation_order(size: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every index once, in order: (steps, batch_size) int32, and a bool mask of that shape.

    The last batch is filled up with index 0 under a False mask.
    """
    steps = -(-size // batch_size)
    indices = np.arange(steps * batch_size, dtype=np.int32).reshape(steps, batch_size)
    return np.where(indices < size, indices, 0), indices < size
