import numpy as np
import pytest

from cnn_jax.evaluation import confusion_matrix, evaluate, summarize


@pytest.mark.parametrize("batch_size", [1, 8, 64, 2000])
def test_every_image_counts_once_whatever_the_batch(batch_size):
    rng = np.random.default_rng(0)
    per_image = {"loss": rng.random(1003), "top1": rng.random(1003) < 0.7, "top5": rng.random(1003) < 0.9}
    asked = []

    def step(indices):
        asked.append(len(indices))
        return {key: values[indices] for key, values in per_image.items()}

    records = evaluate(step, 1003, batch_size)
    assert set(asked) == {batch_size}
    for key, values in per_image.items():
        np.testing.assert_array_equal(records[key], values)
    assert summarize(records) == {
        "test_loss": pytest.approx(per_image["loss"].mean()),
        "test_top1": per_image["top1"].sum() / 1003,
        "test_top5": per_image["top5"].sum() / 1003,
        "test_count": 1003,
    }


def test_confusion_counts_rows_of_true_classes():
    matrix = confusion_matrix(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 2]), 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
