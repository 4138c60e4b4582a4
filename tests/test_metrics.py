import jax
import numpy as np
import pytest

from cnn_jax.evaluation import (
    calibration_error,
    class_accuracy,
    confusion_matrix,
    predictions,
    reliability,
    summarize,
)

RNG = np.random.default_rng(0)


def test_records_are_those_of_numpy():
    logits, labels = RNG.standard_normal((50, 10)).astype(np.float32), np.arange(50) % 10
    records = jax.jit(predictions)(logits, labels)
    order = np.argsort(-logits, 1)
    np.testing.assert_array_equal(records["guess"], order[:, 0])
    np.testing.assert_array_equal(records["top1"], order[:, 0] == labels)
    np.testing.assert_array_equal(records["top5"], (order[:, :5] == labels[:, None]).any(1))
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(records["confidence"], probability.max(1), rtol=1e-5)
    np.testing.assert_allclose(records["loss"], -np.log(probability[np.arange(50), labels]), rtol=1e-5)
    again = predictions(np.log(probability), labels)  # logarithms of probabilities are logits
    for key, values in records.items():
        np.testing.assert_allclose(again[key], values, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_dead_network_is_right_by_chance_only(value):
    records = predictions(np.full((50, 10), value, np.float32), np.arange(50) % 10)
    assert records["top1"].sum() == 5 and records["top5"].sum() == 25


def test_the_summary_is_of_means_and_counts():
    records = {"loss": RNG.random(1003), "top1": RNG.random(1003) < 0.7, "top5": RNG.random(1003) < 0.9}
    assert summarize(records) == {
        "test_loss": pytest.approx(records["loss"].mean()),
        "test_top1": records["top1"].sum() / 1003,
        "test_top5": records["top5"].sum() / 1003,
        "test_count": 1003,
    }


def test_confusion_counts_rows_of_true_classes():
    matrix = confusion_matrix(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 2]), 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]


def test_a_class_without_images_has_no_accuracy():
    np.testing.assert_array_equal(
        class_accuracy(np.array([[1, 1, 0], [0, 4, 0], [0, 0, 0]])),
        [0.5, 1, np.nan],
    )


def test_calibration_error_is_the_definition():
    """Guo 2017, eq. 2 and 3, bin by bin."""
    confidence = RNG.uniform(0.1, 1, 2000).astype(np.float32)
    correct = RNG.random(2000) < confidence**2
    expected = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            expected += inside.sum() / 2000 * abs(correct[inside].mean() - confidence[inside].mean(dtype=np.float64))
    assert calibration_error(confidence, correct) == pytest.approx(expected, rel=1e-6)


def test_calibration_error_by_hand():
    # Ten images at 0.8, six of them right; ten at 1.0, all right: half of 0.2.
    confidence, correct = np.repeat([0.8, 1.0], 10), np.repeat([True, False, True], [6, 4, 10])
    assert calibration_error(confidence, correct) == pytest.approx(0.1)


def test_a_bin_has_its_upper_edge():
    count, mean, accuracy = reliability(np.array([0.0, 1 / 15, 2 / 15, 0.2, 1.0]), np.array([True] * 4 + [False]))
    assert count.tolist() == [2, 1, 1] + [0] * 11 + [1]
    np.testing.assert_allclose(mean[[0, 1, 2, 14]], [1 / 30, 2 / 15, 0.2, 1])
    assert accuracy[0] == 1 and accuracy[14] == 0 and np.isnan(accuracy[3:14]).all()


def test_an_untold_confidence_is_told():
    assert np.isnan(calibration_error(np.array([0.5, np.nan]), np.array([True, False])))
