import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnn_jax.visualize import as_picture, draw_panels, overlay, tiles

RNG = np.random.default_rng(0)


def test_an_overlay_is_the_grey_image_where_a_map_is_zero_and_coloured_where_it_is_high():
    pixels = np.full((8, 8, 3), 200, np.uint8)
    attribution = np.zeros((8, 8))
    attribution[2, 2] = 5.0
    drawn = overlay(pixels, attribution)
    assert (drawn.shape, drawn.dtype) == ((8, 8, 3), np.uint8)
    elsewhere = np.delete(drawn.reshape(64, 3), 18, 0)
    assert (elsewhere == elsewhere[0, 0]).all()  # one grey
    assert np.ptp(drawn[2, 2].astype(int)) > 60  # yellow
    assert (overlay(pixels[..., :1], attribution) == drawn).all()


def test_what_speaks_against_a_class_is_blue_and_what_speaks_for_it_red():
    drawn = overlay(np.zeros((4, 4, 1), np.uint8), np.diag([1.0, -1.0, 0, 0])).astype(int)
    assert drawn[0, 0, 0] > drawn[0, 0, 2] and drawn[1, 1, 2] > drawn[1, 1, 0]


def test_in_a_picture_zero_is_grey_and_the_few_largest_values_are_cut():
    values = RNG.standard_normal((40, 40, 3))
    values[0, 0] = 1e6, -1e6, 0
    drawn = as_picture(values)
    assert drawn[0, 0].tolist() == [255, 0, 128] and drawn.std() > 30
    assert (as_picture(np.zeros((3, 3, 1))) == 128).all()
    alone = np.zeros((40, 40, 1))
    alone[3, 4] = 2.0  # fewer than half a percent
    assert as_picture(alone)[3, 4, 0] == 255


def test_tiles_stand_row_by_row_with_a_white_line_between():
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 2, 3, 1), np.uint8)
    sheet = tiles(pictures)
    assert sheet.shape == (5, 11, 1)
    assert sheet[0, :, 0].tolist() == [0] * 3 + [255] + [1] * 3 + [255] + [2] * 3
    assert sheet[3, :, 0].tolist() == [3] * 3 + [255] + [4] * 3 + [255] * 4
    assert tiles(pictures, columns=5).shape == (2, 19, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_panels_stand_under_their_names(tmp_path, monkeypatch, channels):
    drawn = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, *args, _save=Figure.savefig, **how: (drawn.append(self), _save(self, *args, **how)),
    )
    pixels = RNG.integers(0, 256, (9, 12, channels), np.uint8)
    draw_panels({f"price $ {i} $": pixels for i in range(5)}, tmp_path / "a.png", "all of $ them")
    assert np.asarray(Image.open(tmp_path / "a.png")).std() > 5
    (figure,) = drawn
    assert figure.get_suptitle() == "all of $ them"
    assert [axes.get_title() for axes in figure.axes][:6] == [*(f"price $ {i} $" for i in range(5)), ""]
    assert (figure.axes[4].images[0].get_array() == (pixels[..., 0] if channels == 1 else pixels)).all()
