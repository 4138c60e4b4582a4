"""Losses of embeddings beside pytorch-metric-learning 2.9's, and where a batch has nothing to learn from."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_jit

from cnn_jax.embedding import arcface_loss, contrastive_loss, supcon_loss, triplet_margin_loss

RNG = np.random.default_rng(0)
EVEN = np.repeat(np.arange(4), 3)
UNEVEN = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 0])  # of class 3 there is one image
EMBEDDINGS = RNG.standard_normal((12, 8))
EMBEDDINGS += 1.5 * RNG.standard_normal((4, 8))[EVEN]
WEIGHT = RNG.standard_normal((8, 4))

# Value and norm of the gradient of pytorch-metric-learning 2.9.0 in float64 (PyTorch 2.14.1), for EVEN and UNEVEN:
# TripletMarginLoss(margin=0.2, distance=LpDistance(power=...)) without a miner, with BatchHardMiner and with
# TripletMarginMiner(margin=0.2, type_of_triplets="semihard"); ContrastiveLoss(), and with its losses of single pairs
# squared and halved (Hadsell's); SupConLoss(); ArcFaceLoss(4, 8, margin=degrees(0.5 or 0.3), scale=64 or 8).
THEIRS = {
    "triplet all, power 1": (
        partial(triplet_margin_loss, mining="all", power=1),
        (0.1472749785, 0.1847837956),
        (0.4084031528, 0.0871195850),
    ),
    "triplet hard, power 1": (
        partial(triplet_margin_loss, mining="hard"),
        (0.2105812433, 0.2117402810),
        (0.8437559868, 0.1152987562),
    ),
    "triplet semihard, power 1": (
        partial(triplet_margin_loss, mining="semihard", power=1),
        (0.0678609661, 0.1832290441),
        (0.0997266207, 0.1001347110),
    ),
    "triplet all": (
        partial(triplet_margin_loss, mining="all"),
        (0.2786231238, 0.3939126746),
        (0.8990353107, 0.2432619542),
    ),
    "triplet hard": (
        partial(triplet_margin_loss, mining="hard", power=2),
        (0.3738863542, 0.4246542071),
        (1.6994997230, 0.2705579477),
    ),
    "triplet semihard": (triplet_margin_loss, (0.0779211585, 0.4273471135), (0.0993282888, 0.2805577786)),
    "contrastive, power 1": (
        partial(contrastive_loss, power=1),
        (0.9329496990, 0.2133190235),
        (1.4420480668, 0.1219261360),
    ),
    "contrastive": (contrastive_loss, (0.3424564632, 0.0870182738), (0.8651759230, 0.0934610907)),
    "supcon": (supcon_loss, (1.2290927939, 0.3387615102), (6.5036040536, 0.8890035091)),
    "arcface": (partial(arcface_loss, weight=WEIGHT), (63.0800482551, 4.5998102914), (59.5396409076, 4.7141114037)),
    "arcface, gentle": (
        partial(arcface_loss, weight=WEIGHT, margin=0.3, scale=8),
        (7.0721177141, 0.5653429710),
        (6.6613678640, 0.5688400871),
    ),
}
LOSSES = {name: quick_jit(jax.value_and_grad(loss)) for name, (loss, *_) in THEIRS.items()}


def learned(name, embeddings, labels):
    """Value and gradient, both finite."""
    value, gradient = LOSSES[name](np.asarray(embeddings, np.float32), np.asarray(labels, np.int32))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    return float(value), np.asarray(gradient)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_pytorch_metric_learnings(name):
    _, *expected = THEIRS[name]
    for labels, (value, norm) in zip((EVEN, UNEVEN), expected, strict=True):
        found, gradient = learned(name, EMBEDDINGS, labels)
        np.testing.assert_allclose(found, value, rtol=1e-5)  # float32's rounding, of distances from cosines
        np.testing.assert_allclose(np.linalg.norm(gradient), norm, rtol=1e-5)


def test_the_gradient_of_arcfaces_weight_is_theirs():
    arrays = (np.asarray(array, np.float32) for array in (EMBEDDINGS, WEIGHT))
    gradient = quick_jit(jax.grad(lambda x, weight: arcface_loss(x, EVEN, weight), 1))(*arrays)
    np.testing.assert_allclose(np.linalg.norm(gradient), 12.5359039785, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_the_length_of_an_embedding_does_not_matter(name):
    lengths = np.geomspace(0.1, 10, 12)[:, None]
    values = [learned(name, x, EVEN)[0] for x in (EMBEDDINGS, lengths * EMBEDDINGS)]
    np.testing.assert_allclose(*values, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_without_pairs_of_both_kinds_no_number_is_bad(name):
    for labels in (np.full(12, 2), np.arange(12) % 4 if "arcface" in name else np.arange(12)):
        value, gradient = learned(name, EMBEDDINGS, labels)
        if "triplet" in name:
            assert value == 0 and not gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_equal_images_have_finite_gradients(name):
    """And so have images on the direction of their class, the opposite one, and an embedding of length 0."""
    embeddings = np.repeat(WEIGHT.T, 3, 0)
    embeddings[-1] *= -1
    embeddings[0] = 0
    learned(name, embeddings, EVEN)


def test_arcface_falls_with_the_cosine_of_the_own_class_all_the_way():
    """Also past pi - margin, where the cosine of angle + margin would rise again."""
    angles = np.linspace(0, np.pi, 50)
    embeddings = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)[:, None]
    weight = np.eye(3)[:, [0, 2]]  # the second class is at a right angle to all
    losses = quick_jit(jax.vmap(lambda row: arcface_loss(row, np.zeros(1, int), weight)))(embeddings)
    assert (np.diff(losses) >= 0).all() and losses[-1] > losses[25] > losses[0]


def test_triplets_need_no_array_of_all_of_them():
    """256^3 floats would be 64 MiB."""
    shapes = jax.ShapeDtypeStruct((256, 8), jnp.float32), jax.ShapeDtypeStruct((256,), jnp.int32)
    step = quick_jit(jax.value_and_grad(triplet_margin_loss)).lower(*shapes).compile()
    assert step.memory_analysis().temp_size_in_bytes < 4 * 2**20
