from PIL import Image

from cnn_jax.models import FAMILIES, model_info
from cnn_jax.visualize import timeline


def test_every_network_of_the_picture_has_what_is_drawn():
    for name in timeline.SHOWN:
        info = model_info(name)
        assert any(accuracy.top5 for accuracy in info.accuracies) and info.params and info.macs, name
    assert len({model_info(name).paper for name in timeline.SHOWN}) > len(FAMILIES) / 2


def test_the_picture_is_drawn(tmp_path):
    timeline.draw_timeline(tmp_path / "timeline.png")
    with Image.open(tmp_path / "timeline.png") as picture:
        assert picture.size == (1100, 520)
