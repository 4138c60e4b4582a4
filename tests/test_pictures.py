import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnn_jax.visualize import draw_confusion, draw_curves, draw_mistakes, draw_reliability, pictures

RNG = np.random.default_rng(0)
RECORDS = [
    record
    for epoch in (1, 2, 3)
    for record in (
        {"kind": "train", "step": epoch, "epoch": epoch, "loss": 1 / epoch, "top1": 0.8, "lr": 0.1, "images_per_s": 5},
        {"kind": "test", "step": epoch, "epoch": epoch, "loss": 2 / epoch, "top1": 0.7, "top5": 1.0, "count": 1000},
    )
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, kept to be asked."""
    drawn = []

    class Kept(Figure):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            drawn.append(self)

    monkeypatch.setattr(pictures, "Figure", Kept)
    return drawn


def predictions(labels, guesses, confidence):
    return {
        "index": np.arange(len(labels)), "label": labels, "guess": guesses, "confidence": confidence,
        "top1": labels == guesses,
    }  # fmt: skip


def is_a_picture(path):
    pixels = np.asarray(Image.open(path).convert("L"))
    return pixels.shape[0] > 200 and pixels.std() > 5


def test_curves_have_labelled_axes_and_legends(tmp_path, figures):
    draw_curves(RECORDS, tmp_path / "curves.png", "net on data")
    assert is_a_picture(tmp_path / "curves.png")
    (figure,) = figures
    assert figure.get_suptitle() == "net on data: 70.00% of 1,000 test images"
    for axes in figure.axes:
        assert axes.get_xlabel() == "epoch" and axes.get_ylabel() and axes.get_legend()
    loss, accuracy, _ = figure.axes
    np.testing.assert_allclose(loss.lines[1].get_ydata(), [2, 1, 2 / 3])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [80, 80, 80])


def test_curves_of_an_unfinished_run_can_be_drawn(tmp_path):
    draw_curves(RECORDS[:1], tmp_path / "curves.png", "net")
    assert is_a_picture(tmp_path / "curves.png")


@pytest.mark.parametrize("classes", [3, 10, 60])
def test_confusion_shows_counts_where_they_are_legible(tmp_path, figures, classes):
    matrix = RNG.integers(1, 9, (classes, classes))
    draw_confusion(matrix, [f"class {i}" for i in range(classes)], tmp_path / "c.png", "net")
    assert is_a_picture(tmp_path / "c.png")
    axes = figures[0].axes[0]
    shown = [int(text.get_text()) for text in axes.texts]
    assert shown == (matrix.ravel().tolist() if classes <= 40 else [])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("guess", "true class")


@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_show_label_and_guess_the_surest_first(tmp_path, figures, channels):
    images = RNG.integers(0, 256, (50, 9, 9, channels), np.uint8)
    labels = np.arange(50) % 2
    guesses = labels.copy()
    guesses[[3, 7, 11]] = 2
    found = predictions(labels, guesses, np.linspace(0.5, 1, 50))
    draw_mistakes(found, images.__getitem__, ["cat", "dog", "hen"], tmp_path / "m.png", "net")
    assert is_a_picture(tmp_path / "m.png")
    texts = [axes.texts[0].get_text() for axes in figures[0].axes if axes.texts]
    assert texts == [f"guess hen ({100 * found['confidence'][i]:.0f}%)" for i in (11, 7, 3)]
    assert [axes.get_title() for axes in figures[0].axes if axes.texts] == ["label dog"] * 3
    assert figures[0].get_suptitle() == "net: 3 of 50 wrong, the surest 3 first"


def test_names_with_a_dollar_are_names_and_powers_of_ten_are_powers(tmp_path, figures):
    draw_confusion(np.eye(2, dtype=int), ["$5 note", r"\frac$"], tmp_path / "c.png", "$a$ on $b")
    draw_curves(RECORDS, tmp_path / "curves.png", "$a$ on $b")
    confusion, curves = figures
    shown = [confusion.axes[0].title, *confusion.axes[0].get_xticklabels()]
    assert all(text._preprocess_math(text.get_text())[1] is False for text in shown)
    assert curves.axes[0].get_yticklabels()[0].get_parse_math()
    assert is_a_picture(tmp_path / "c.png") and is_a_picture(tmp_path / "curves.png")


def test_a_perfect_network_has_an_empty_picture(tmp_path):
    found = predictions(np.zeros(4, int), np.zeros(4, int), np.ones(4))
    draw_mistakes(found, np.zeros((4, 5, 5, 1), np.uint8).__getitem__, ["a"], tmp_path / "m.png", "net")
    assert (tmp_path / "m.png").is_file()


def test_reliability_shows_the_accuracy_of_each_bin_and_its_images(tmp_path, figures):
    confidence, correct = np.repeat([0.1, 0.9], [3, 5]), np.array([0, 0, 1, 1, 1, 1, 1, 0], bool)
    draw_reliability(confidence, correct, tmp_path / "reliability.png", "net on data")
    assert is_a_picture(tmp_path / "reliability.png")
    (figure,) = figures
    above, below = figure.axes
    heights = [bar.get_height() for bar in above.patches]
    np.testing.assert_allclose([heights[1], heights[13]], [100 / 3, 80])  # (1/15, 2/15] and (13/15, 14/15]
    assert [bar.get_height() for bar in below.patches] == [0, 3] + [0] * 11 + [5, 0]
    error = 100 * (3 / 8 * abs(1 / 3 - 0.1) + 5 / 8 * abs(0.8 - 0.9))
    assert figure.get_suptitle() == f"net on data\ncalibration error {error:.2f}%, 8 images"


def test_names_in_any_script_are_drawn_without_a_warning(tmp_path):
    """CJK, which matplotlib's own font does not have, is drawn as boxes."""
    from cnn_jax.visualize import draw_samples

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_samples([np.zeros((8, 8, 3), np.uint8)] * 2, ["кот", "猫"], tmp_path / "s.png", "животные 動物")
    assert (tmp_path / "s.png").stat().st_size > 1000
