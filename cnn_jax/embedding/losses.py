"""Losses of embeddings: what is alike lies close. Each is one number for a batch of (B, D) embeddings and (B,) labels.

Names, reductions and values are those of pytorch-metric-learning 2.9: embeddings are brought to length 1 here, as
there, and a mean is one over what is not 0 (its AvgNonZeroReducer), so that pairs and triplets that are far enough
apart do not dilute the others. A batch with nothing to learn from gives 0, with a gradient of 0. All but ArcFace need
several images of each class in a batch: `data.order.class_order`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

Mining = Literal["hard", "semihard", "all"]


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis, float32; one of length 0 stays."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, -1, keepdims=True), 1e-24))


def distances(a: jax.Array, b: jax.Array, power: int = 1) -> jax.Array:
    """Euclidean distances between the unit vectors of (N, D) and (M, D), or their squares: (N, M) in [0, 2^power].

    From cosines, |a - b|^2 = 2 - 2 a.b, so that nothing of size N * M * D is made; in float32 a distance below 1e-3 is
    noise. The gradient of a distance of 0 is 0.
    """
    squares = 2 - 2 * jnp.dot(unit(a), unit(b).T, precision="highest")
    apart = squares > 0
    squares = jnp.where(apart, squares, 0.0)
    return squares if power == 2 else jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)


def contrastive_loss(embeddings: jax.Array, labels: jax.Array, margin: float = 1.0, power: int = 2) -> jax.Array:
    """Pairs of one class come together, others move apart up to `margin` (Hadsell, Chopra & LeCun 2006, eq. 4).

    The mean of d^2 / 2 over the former plus that of max(0, margin - d)^2 / 2 over the latter; with `power` 1 d and
    max(0, margin - d), which is pytorch-metric-learning's ContrastiveLoss(neg_margin=margin).
    """
    apart = distances(embeddings, embeddings)
    alike, other = _pairs(labels)
    pull, push = (value**power / power for value in (apart, jax.nn.relu(margin - apart)))
    return _mean_of_some(pull, alike) + _mean_of_some(push, other)


def triplet_margin_loss(
    embeddings: jax.Array,
    labels: jax.Array,
    margin: float = 0.2,
    mining: Mining = "semihard",
    power: int | None = None,
) -> jax.Array:
    """An anchor is nearer to its own class than to others, by `margin`: max(0, d(a, p) - d(a, n) + margin).

    FaceNet's (Schroff, Kalenichenko & Philbin 2015, 1503.03832, eq. 1). `mining`: "all" triplets of the batch;
    "semihard" those whose negative is farther than the positive, but by less than the margin (sec. 3.2); "hard" for
    each anchor its farthest positive and nearest negative (Hermans 2017, 1703.07737, eq. 5). Distances are to the
    `power`, by default the papers': FaceNet's are squared, Hermans's are not, since with squares of the hardest
    embeddings collapse to one point more easily.

    pytorch-metric-learning's TripletMarginLoss(margin, distance=LpDistance(power=power)), with no miner,
    TripletMarginMiner(margin, type_of_triplets="semihard") or BatchHardMiner.
    """
    apart = distances(embeddings, embeddings, power or (1 if mining == "hard" else 2))
    alike, other = _pairs(labels)
    if mining == "hard":
        farthest = jnp.max(jnp.where(alike, apart, -jnp.inf), 1)
        nearest = jnp.min(jnp.where(other, apart, jnp.inf), 1)
        whole = alike.any(1) & other.any(1)
        return _mean_of_some(jax.nn.relu(jnp.where(whole, farthest - nearest, -jnp.inf) + margin), whole)

    @jax.checkpoint  # computed again for the gradient, anchor by anchor: no array of B^3 is made
    def of_one(anchor: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        apart, alike, other = anchor
        excess = apart[:, None] - apart[None]  # (positive, negative)
        counted = alike[:, None] & other[None] & (excess > -margin)
        if mining == "semihard":
            counted &= excess < 0
        return jnp.sum(jnp.where(counted, excess + margin, 0.0)), jnp.sum(counted, dtype=jnp.float32)

    total, count = map(jnp.sum, jax.lax.map(of_one, (apart, alike, other)))
    return total / jnp.maximum(count, 1)


def supcon_loss(embeddings: jax.Array, labels: jax.Array, temperature: float = 0.1) -> jax.Array:
    """Supervised contrastive learning (Khosla 2020, 2004.11362, eq. 2): each image of an anchor's class is to win a
    softmax over all other images of the batch, whose logits are cosines / `temperature`.

    pytorch-metric-learning's SupConLoss. An anchor that is alone in its class does not count.
    """
    vectors = unit(embeddings)
    logits = jnp.dot(vectors, vectors.T, precision="highest") / temperature
    alike, other = _pairs(labels)
    others = jax.nn.logsumexp(logits, 1, where=alike | other, keepdims=True)
    surprise = jnp.where(alike, others - logits, 0.0)
    return _mean_of_some(surprise.sum(1) / jnp.maximum(alike.sum(1), 1), alike.any(1))


def arcface_loss(
    embeddings: jax.Array, labels: jax.Array, weight: jax.Array, margin: float = 0.5, scale: float = 64.0
) -> jax.Array:
    """Cross entropy of cosines with a direction for each class, of `arcface_logits` (Deng 2018, 1801.07698, eq. 3).

    `weight` (D, classes) are the directions, of any length, which are learned with the network, as Embedder has them;
    classes that are not trained on need none. pytorch-metric-learning's ArcFaceLoss, whose margin is in degrees: 28.6
    of them are 0.5.
    """
    cosines = jnp.dot(unit(embeddings), unit(weight.T).T, precision="highest")
    logits = arcface_logits(cosines, labels, margin, scale)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def arcface_logits(cosines: jax.Array, labels: jax.Array, margin: float = 0.5, scale: float = 64.0) -> jax.Array:
    """`scale` times cosines (B, classes), where the label's angle is larger by `margin` radians.

    Where angle + margin would pass pi, cos - margin * sin(margin) falls on instead, as the authors' code has it.
    """
    own = jnp.take_along_axis(cosines, labels[:, None], 1)
    # Sine by Pythagoras; its slope is endless at 0, where float32 puts no cosine but by rounding.
    sine = jnp.sqrt(jnp.maximum(1 - own**2, 1e-7))
    turned = own * jnp.cos(margin) - sine * jnp.sin(margin)
    turned = jnp.where(own >= -jnp.cos(margin), turned, own - margin * jnp.sin(margin))
    return scale * jnp.where(jax.nn.one_hot(labels, cosines.shape[1], dtype=bool), turned, cosines)


def _pairs(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which two images are of one class and which are not, (B, B) bool each; an image and itself are neither."""
    alike = labels[:, None] == labels[None]
    return alike & ~jnp.eye(len(labels), dtype=bool), ~alike


def _mean_of_some(values: jax.Array, where: jax.Array) -> jax.Array:
    """The mean of those that are above 0; 0 if none is."""
    counted = where & (values > 0)
    return jnp.sum(jnp.where(counted, values, 0.0)) / jnp.maximum(jnp.sum(counted), 1)
