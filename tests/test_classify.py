import numpy as np

from cnn_jax.data import open_dataset
from cnn_jax.recipes import RECIPES
from cnn_jax.tasks import make_task
from cnn_jax.tasks.classify import binary_cross_entropy


def test_binary_cross_entropy_is_a_mean_over_classes():
    logits = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    labels = np.full((4, 5), 0.02, np.float32)
    labels[:, 1], labels[:, 3] = 0.7, 0.22
    p = 1 / (1 + np.exp(-logits))
    by_hand = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(1)
    np.testing.assert_allclose(binary_cross_entropy(logits, labels), by_hand, rtol=1e-5)
    both = np.zeros((4, 5))
    both[:, [1, 3]] = 1
    by_hand = -(both * np.log(p) + (1 - both) * np.log(1 - p)).mean(1)
    np.testing.assert_allclose(binary_cross_entropy(logits, labels, 0.2), by_hand, rtol=1e-5)


def test_what_a_test_found_is_drawn(tmp_path):
    task = make_task(RECIPES["lenet5_modern"], 10, 1)
    test_set = open_dataset("mnist_5k", "test")
    labels, guesses = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1, 1, 0, 1, 2])
    records = {"label": labels, "guess": guesses, "top1": labels == guesses, "confidence": np.full(6, 0.8)}
    records["index"] = np.arange(6) + 3  # the first three were bad
    names = task.draw(tmp_path, "net", records, test_set)
    assert sorted(path.name for path in tmp_path.iterdir()) == names == ["confusion.png", "mistakes.png"]
