"""How good embeddings are, for classes never trained on, too: do two images show the same, and what is next to what.

Host arithmetic in NumPy; embeddings are brought to length 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnn_jax.errors import UserError

FOLDS = 10
BLOCK = 2**24  # distances that are held at once, 64 MiB


class Verification(NamedTuple):
    """What `verify` finds; rates in [0, 1], distances in [0, 2].

    Attributes:
      accuracy: of same or different, the mean over ten folds, each by the threshold that is best for the other nine.
      accuracy_std: its standard deviation over the folds.
      threshold: the mean of these; pairs at most so far apart are called the same.
      val: VAL@FAR: share of same pairs that are accepted where at most a share `far` of different ones is, ...
      val_std: ... and its standard deviation; the mean over ten folds, with thresholds of the other nine.
      far: the share that `val` asks for.
      auc: area under the ROC curve: how likely a same pair is nearer than a different one.
      eer: equal error rate: where as many same pairs are rejected as different ones accepted.
    """

    accuracy: float
    accuracy_std: float
    threshold: float
    val: float
    val_std: float
    far: float
    auc: float
    eer: float


def draw_pairs(labels: np.ndarray, count: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images to verify: (count, 2) int64 places and (count,) bool, in turn of one class and of two.

    6,000 with a half of each are as many as LFW's (Huang 2007, view 2). Classes come equally often, those of one image
    only in pairs of two classes; an image may come in several pairs.

    Raises:
      UserError: fewer than two classes, or none of two images.
    """
    rng, (names, places) = np.random.default_rng(seed), np.unique(labels, return_inverse=True)
    members = [np.flatnonzero(places == place) for place in range(len(names))]
    several = [images for images in members if len(images) > 1]
    if len(members) < 2 or not several:
        raise UserError(f"pairs take two classes and two images of one, not {len(labels)} images of {len(members)}")
    pairs, same = np.empty((count, 2), np.int64), np.arange(count) % 2 == 0
    for row, alike in enumerate(same):
        if alike:
            pairs[row] = rng.choice(several[rng.integers(len(several))], 2, replace=False)
        else:
            pairs[row] = [rng.choice(members[place]) for place in rng.choice(len(members), 2, replace=False)]
    return pairs, same


def verify(
    embeddings: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    pairs: np.ndarray | None = None,
    same: np.ndarray | None = None,
    far: float = 1e-3,
) -> Verification:
    """LFW's protocol for embeddings (N, D): accuracy, VAL@FAR, AUC and equal error rate over pairs of them.

    Either `labels` (N,) integers, of which `draw_pairs` makes 6,000 pairs, or `pairs` (P, 2), places in `embeddings`,
    with `same` (P,) bool. Ten folds follow one another in the order of the pairs, as in David Sandberg's facenet
    (Huang 2007, view 2; VAL and FAR: Schroff 2015, 1503.03832, sec. 4). Every distance between two neighbours is tried
    as a threshold, where facenet tries 400.

    Raises:
      UserError: both or neither of labels and pairs, shapes that do not fit, folds without a pair of each kind.
    """
    if labels is not None and pairs is None and same is None:
        pairs, same = draw_pairs(np.asarray(labels))
    if pairs is None or same is None or (labels is not None and len(labels) != len(embeddings)):
        raise UserError("verify takes embeddings and either their labels, one each, or pairs and same")
    pairs, same = np.asarray(pairs), np.asarray(same, bool)
    if pairs.shape != (len(same), 2):
        raise UserError(f"verify takes pairs (P, 2) and same (P,), not {pairs.shape} and {same.shape}")
    apart = pair_distances(embeddings, pairs).astype(np.float64)
    folds = np.array_split(np.arange(len(same)), FOLDS)
    if not all(same[fold].any() and not same[fold].all() for fold in folds):
        raise UserError(f"each of {FOLDS} folds of pairs, one after another, needs same pairs and different ones")
    found = []
    for fold in folds:
        rest = np.ones(len(same), bool)
        rest[fold] = False
        best, strict = _best_threshold(apart[rest], same[rest]), _threshold_at(apart[rest & ~same], far)
        accuracy = np.mean((apart[fold] <= best) == same[fold])
        found.append((accuracy, best, np.mean(apart[fold][same[fold]] <= strict)))
    accuracy, threshold, val = (np.array(column) for column in zip(*found, strict=True))
    accepted, false, _ = _roc(apart, same)
    return Verification(
        accuracy=float(accuracy.mean()),
        accuracy_std=float(accuracy.std()),
        threshold=float(threshold.mean()),
        val=float(val.mean()),
        val_std=float(val.std()),
        far=far,
        auc=float(np.trapezoid(accepted, false)),
        eer=_crossing(accepted, false),
    )


def pair_distances(embeddings: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """How far the embeddings of pairs (P, 2) are apart, (P,) float32 in [0, 2]."""
    vectors = unit(embeddings)
    return np.linalg.norm(vectors[pairs[:, 0]] - vectors[pairs[:, 1]], axis=1)


def nearest_neighbours(
    embeddings: np.ndarray, k: int = 5, *, queries: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest of (N, D) embeddings to each query (Q, D), the nearest first: (Q, k) places and their distances.

    Without `queries` the embeddings themselves ask, and none is its own neighbour. Distances are float32 in [0, 2].

    Raises:
      UserError: fewer embeddings than neighbours.
    """
    vectors = unit(embeddings)
    asking = vectors if queries is None else unit(queries)
    if not 0 < k <= len(vectors) - (queries is None):
        raise UserError(f"k must be at least 1 and at most {len(vectors) - (queries is None)} neighbours, not {k}")
    places, cosines = np.empty((len(asking), k), np.int64), np.empty((len(asking), k), np.float32)
    rows = max(1, BLOCK // len(vectors))
    for at in range(0, len(asking), rows):
        near = asking[at : at + rows] @ vectors.T
        if queries is None:
            near[np.arange(len(near)), np.arange(at, at + len(near))] = -np.inf
        few = np.argpartition(-near, k - 1, 1)[:, :k]
        few = np.take_along_axis(few, np.argsort(-np.take_along_axis(near, few, 1), 1, kind="stable"), 1)
        places[at : at + rows], cosines[at : at + rows] = few, np.take_along_axis(near, few, 1)
    return places, np.sqrt(np.maximum(2 - 2 * cosines, 0))


def recall_at_k(embeddings: np.ndarray, labels: np.ndarray, k: Sequence[int] = (1, 2, 4, 8)) -> dict[int, float]:
    """For each `k` the share of images that have one of their own class among their `k` nearest (Song 2016,
    1511.06452, sec. 5).

    Raises:
      UserError: as `nearest_neighbours`, or labels (N,) that do not fit embeddings (N, D).
    """
    labels = np.asarray(labels)
    if labels.shape != (len(embeddings),):
        raise UserError(f"recall_at_k takes a label for each of {len(embeddings)} embeddings, not {labels.shape}")
    places, _ = nearest_neighbours(embeddings, max(k))
    right = np.logical_or.accumulate(labels[places] == labels[:, None], 1)
    return {count: float(right[:, count - 1].mean()) for count in k}


def embedding_map(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (N, D) in the plane along which they spread most: (N, 2) float32, their two principal components.

    The largest part of either direction is positive, so that the same embeddings give the same map.
    """
    vectors = unit(embeddings)
    vectors = vectors - vectors.mean(0)
    _, _, directions = np.linalg.svd(vectors, full_matrices=False)
    plane = directions[:2]
    largest = np.take_along_axis(plane, np.abs(plane).argmax(1)[:, None], 1)
    return vectors @ (plane * np.sign(largest)).T


def unit(embeddings: np.ndarray) -> np.ndarray:
    """(N, D) as float32 of length 1."""
    vectors = np.asarray(embeddings, np.float32)
    if vectors.ndim != 2:
        raise UserError(f"embeddings must be (N, D), not {vectors.shape}")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _roc(apart: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of same and of different pairs that are at most so far apart, for each distance that occurs, after 0 of
    both at a distance below all."""
    order = np.argsort(apart, kind="stable")
    apart, same = apart[order], same[order]
    last = np.append(apart[1:] > apart[:-1], True)  # equal distances are accepted together
    accepted, false = np.cumsum(same)[last] / same.sum(), np.cumsum(~same)[last] / (~same).sum()
    return np.append(0, accepted), np.append(0, false), np.append(-1, apart[last])


def _best_threshold(apart: np.ndarray, same: np.ndarray) -> float:
    """The one of most right answers, halfway to the next distance; the lowest of several."""
    accepted, false, distance = _roc(apart, same)
    best = int(np.argmax(accepted * same.sum() + (1 - false) * (~same).sum()))
    return float(distance[best : best + 2].mean())


def _threshold_at(different: np.ndarray, far: float) -> float:
    """The largest below which at most a share `far` of the different pairs lies."""
    allowed = int(far * len(different))
    return float(np.nextafter(np.sort(different)[allowed], -1)) if allowed < len(different) else np.inf


def _crossing(accepted: np.ndarray, false: np.ndarray) -> float:
    """Where the line through the ROC's points meets 1 - accepted = false."""
    excess = accepted + false - 1  # rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    part = excess[after] / (excess[after] - excess[after - 1])
    return float(false[after] - part * (false[after] - false[after - 1]))
