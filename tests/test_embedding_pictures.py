import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnn_jax.embedding import draw_pairs, embedding_map, nearest_neighbours, pair_distances
from cnn_jax.visualize import draw_distances, draw_map, draw_neighbours, embeddings

RNG = np.random.default_rng(0)
LABELS = np.arange(30) % 3
VECTORS = RNG.standard_normal((30, 8)) + 2 * RNG.standard_normal((3, 8))[LABELS]
CLASSES = ["$hat", "$coat", "shoe", "none of them"]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, kept to be asked."""
    drawn = []

    class Kept(Figure):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            drawn.append(self)

    monkeypatch.setattr(embeddings, "Figure", Kept)
    return drawn


def is_a_picture(path):
    pixels = np.asarray(Image.open(path).convert("L"))
    return pixels.shape[0] > 200 and pixels.std() > 5


@pytest.mark.parametrize("channels", [1, 3])
def test_neighbours_stand_beside_the_image_in_the_colour_of_right_or_wrong(tmp_path, figures, channels):
    images = RNG.integers(0, 256, (30, 9, 9, channels), np.uint8)
    names = [CLASSES[label] for label in LABELS]
    places, apart = nearest_neighbours(VECTORS, 4)
    names[places[7, 1]] = "sock"
    draw_neighbours(places, apart, [7, 11], images.__getitem__, names, tmp_path / "n.png", "$5 net")
    assert is_a_picture(tmp_path / "n.png")
    (figure,) = figures
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 10 and titles[0] == "$coat" and titles[2] == f"sock, {apart[7, 1]:.2f}"
    colours = [axes.title.get_color() for axes in figure.axes]
    assert colours[0] == "black" and colours[2] == embeddings.OTHER
    for axes, place in zip(figure.axes[6:], places[11], strict=True):
        assert axes.title.get_color() == (embeddings.ALIKE if names[place] == "shoe" else embeddings.OTHER)


def test_the_map_has_a_colour_for_each_class_that_is_there(tmp_path, figures):
    draw_map(embedding_map(VECTORS), LABELS, CLASSES, tmp_path / "m.png", "net on data")
    assert is_a_picture(tmp_path / "m.png")
    (figure,) = figures
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [r"\$hat", r"\$coat", "shoe"]
    assert [len(drawn.get_offsets()) for drawn in figure.axes[0].collections] == [10, 10, 10]


def test_a_map_of_many_classes_has_no_legend(tmp_path, figures):
    draw_map(embedding_map(VECTORS), np.arange(30), [str(i) for i in range(30)], tmp_path / "m.png", "net")
    assert is_a_picture(tmp_path / "m.png") and not figures[0].legends


def test_distances_show_both_kinds_of_pairs_and_where_they_are_divided(tmp_path, figures):
    pairs, same = draw_pairs(LABELS, 200)
    draw_distances(pair_distances(VECTORS, pairs), same, 0.8, tmp_path / "d.png", "net")
    assert is_a_picture(tmp_path / "d.png")
    texts = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert {*texts} == {"pairs of one class (100)", "pairs of two classes (100)", "threshold 0.80"}
    heights = [bar.get_height() for bar in figures[0].axes[0].patches]
    np.testing.assert_allclose(sum(heights), 200)  # percent, of either kind
