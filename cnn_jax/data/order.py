"""Which images make up which batch: numbers alone, so that a position is just a step."""

from collections.abc import Iterator

import numpy as np


def epoch_order(seed: int, epoch: int, size: int, batch_size: int) -> np.ndarray:
    """Indices of every batch of an epoch, (size // batch_size, batch_size) int32.

    A function of its arguments and of nothing before: a resumed run reads on where it was. The
    images that do not fill a last batch wait for another epoch's shuffle.
    """
    steps = size // batch_size
    shuffled = np.random.default_rng((seed, epoch)).permutation(size)
    return shuffled[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def evaluation_batches(size: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every index once, in order: ((batch_size,) int32 indices, (batch_size,) bool mask) a batch.

    The last batch is filled up with index 0 under a False mask.
    """
    for start in range(0, size, batch_size):
        indices = np.arange(start, start + batch_size, dtype=np.int32)
        mask = indices < size
        yield np.where(mask, indices, 0), mask
