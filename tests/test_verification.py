"""Verification, neighbours and the map of embeddings, beside scikit-learn's and pytorch-metric-learning's numbers."""

import numpy as np
import pytest

from cnn_jax import UserError
from cnn_jax.embedding import draw_pairs, embedding_map, nearest_neighbours, recall_at_k, verification, verify

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4), 25)
EMBEDDINGS = (RNG.standard_normal((100, 6)) + 1.2 * RNG.standard_normal((4, 6))[LABELS]).astype(np.float32)
PAIRS = RNG.integers(0, 100, (400, 2))
SAME = LABELS[PAIRS[:, 0]] == LABELS[PAIRS[:, 1]]
UNIT = EMBEDDINGS / np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True)
APART = np.linalg.norm(UNIT[PAIRS[:, 0]] - UNIT[PAIRS[:, 1]], axis=1)


def test_area_and_equal_error_rate_are_scikit_learns():
    """1.9.1: roc_auc_score; the root of 1 - fpr - tpr by brentq on a line through roc_curve's points."""
    found = verify(EMBEDDINGS, pairs=PAIRS, same=SAME)
    np.testing.assert_allclose(found.auc, 0.9708960573476703, rtol=1e-9)
    np.testing.assert_allclose(found.eer, 0.1, rtol=1e-9)


def test_accuracy_and_val_are_those_of_facenets_loop():
    """David Sandberg's evaluate: ten folds in order, thresholds of the other nine; every distance is tried here."""
    found = verify(EMBEDDINGS, pairs=PAIRS, same=SAME, far=0.02)
    accuracies, values, thresholds = [], [], np.append(-1, np.sort(APART))
    for fold in np.split(np.arange(400), 10):
        rest = np.setdiff1d(np.arange(400), fold)
        right = [np.mean((APART[rest] <= t) == SAME[rest]) for t in thresholds]
        best = thresholds[np.argmax(right)]
        accuracies.append(np.mean((APART[fold] <= best + 1e-9) == SAME[fold]))
        different = APART[rest[~SAME[rest]]]
        strict = max(t for t in thresholds if np.mean(different <= t) <= 0.02)
        values.append(np.mean(APART[fold[SAME[fold]]] <= strict))
    np.testing.assert_allclose(found.accuracy, np.mean(accuracies), atol=2 / 400)  # a threshold is halfway, here
    np.testing.assert_allclose([found.val, found.val_std], [np.mean(values), np.std(values)], rtol=1e-6)
    # facenet's own 400 thresholds give 0.9275, 0.0378, 1.0134; VAL 0.6443, 0.1739.
    np.testing.assert_allclose(found[:5], [0.9275, 0.0378, 1.0134, 0.6443, 0.1739], atol=4e-3)
    assert found.far == 0.02


def test_embeddings_that_tell_everything_are_perfect_and_equal_ones_tell_nothing():
    perfect = verify(np.eye(4)[LABELS], LABELS)
    assert perfect[:2] == (1.0, 0.0) and perfect.val == 1 and perfect.auc == 1 and perfect.eer == 0
    assert 0 < perfect.threshold < np.sqrt(2)
    nothing = verify(np.ones((100, 3)), LABELS)
    assert nothing.accuracy == nothing.auc == nothing.eer == 0.5 and nothing.val == 0


def test_pairs_are_half_of_one_class_and_never_an_image_with_itself():
    pairs, same = draw_pairs(LABELS + 7, 1000)
    assert (LABELS[pairs[:, 0]] == LABELS[pairs[:, 1]]).tolist() == same.tolist() == [True, False] * 500
    assert (pairs[:, 0] != pairs[:, 1]).all()
    np.testing.assert_array_equal(draw_pairs(LABELS, 1000)[0], pairs)
    assert not np.array_equal(draw_pairs(LABELS, 1000, seed=1)[0], pairs)
    # Classes come equally often, whatever their sizes: 500 of 4, with a deviation of 10.
    uneven = np.repeat(np.arange(4), [2, 10, 100, 1000])
    drawn = np.bincount(uneven[draw_pairs(uneven, 1000)[0].ravel()])
    assert abs(drawn - 500).max() < 60
    pairs, same = draw_pairs(np.array([0, 1, 1]), 100)
    assert (pairs[same].min(1) == 1).all() and (pairs[~same] == 0).any(1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either their labels, one each, or pairs and same"),
        ({"labels": LABELS[1:]}, "either their labels"),
        ({"labels": LABELS, "pairs": PAIRS}, "either their labels"),
        ({"labels": 0 * LABELS}, "two classes and two images of one, not 100 images of 1"),
        ({"pairs": PAIRS.T, "same": SAME}, r"pairs \(P, 2\) and same \(P,\), not \(2, 400\) and \(400,\)"),
        ({"pairs": PAIRS, "same": np.sort(SAME)}, "each of 10 folds of pairs"),
    ],
)
def test_pairs_that_cannot_be_verified_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        verify(EMBEDDINGS, **arguments)


def test_recall_is_pytorch_metric_learnings():
    """2.9.0: CustomKNN(LpDistance()) with itself left out; AccuracyCalculator's precision_at_1 is the first."""
    assert recall_at_k(EMBEDDINGS, LABELS) == {1: 0.96, 2: 0.98, 4: 0.99, 8: 1.0}


def test_neighbours_are_those_of_pytorch_metric_learning(monkeypatch):
    monkeypatch.setattr(verification, "BLOCK", 700)  # seven rows at once
    places, apart = nearest_neighbours(EMBEDDINGS, 8)
    assert places[:2].tolist() == [[6, 5, 14, 20, 19, 3, 9, 17], [24, 4, 3, 16, 6, 0, 20, 5]]
    np.testing.assert_allclose(apart, np.linalg.norm(UNIT[places] - UNIT[:, None], axis=-1), atol=1e-4)
    assert apart.dtype == np.float32
    others, _ = nearest_neighbours(EMBEDDINGS[20:], 3, queries=3 * EMBEDDINGS[:40])
    assert (others[20:, 0] == np.arange(20)).all()  # its own, since it is asked from outside


def test_neighbours_and_recall_of_what_does_not_fit_are_told():
    with pytest.raises(UserError, match="at most 99 neighbours, not 100"):
        nearest_neighbours(EMBEDDINGS, 100)
    with pytest.raises(UserError, match=r"embeddings must be \(N, D\), not \(6,\)"):
        nearest_neighbours(EMBEDDINGS, queries=EMBEDDINGS[0])
    with pytest.raises(UserError, match=r"a label for each of 100 embeddings, not \(99,\)"):
        recall_at_k(EMBEDDINGS, LABELS[1:])


def test_the_map_is_scikit_learns_pca():
    """1.9.1: PCA(2, svd_solver="full") of the unit vectors; the first three rows."""
    theirs = [[0.40139474, -0.91504394], [0.13177811, -0.8109933], [0.0275668, -0.8773769]]
    found = embedding_map(EMBEDDINGS)
    assert found.shape == (100, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[:3], theirs, atol=1e-6)
