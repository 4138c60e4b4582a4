import numpy as np

from cnn_jax.training.loss import binary_cross_entropy


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
