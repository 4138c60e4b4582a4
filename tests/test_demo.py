"""The page of `cnn-jax demo`, but for what only a browser shows."""

import sys
import urllib.request

import httpx
import numpy as np
import pytest

from cnn_jax.cli import main
from cnn_jax.commands import demo
from cnn_jax.commands.network import open_run
from cnn_jax.data import mnist_5k


@pytest.fixture(scope="module")
def network(whole):
    return open_run(whole[0], "latest")[0]


def test_an_image_is_told_and_shown(network):
    images, labels = mnist_5k.read_split("test")
    shares, where, layers = demo.look(network, images[300])
    assert max(shares, key=shares.get) == str(labels[300]) and len(shares) == 5
    assert where.shape == (256, 256, 3) and where.dtype == np.uint8
    assert [name for _, name in layers] == ["c1", "s2", "c3", "s4"]  # c5 has one position
    assert all(picture.shape == (256, 256, 3) and picture.max() == 255 for picture, _ in layers)


def test_an_image_of_any_size_is_seen_as_the_network_sees_it(network):
    """A larger digit is brought to the size that the network was trained on."""
    image = mnist_5k.read_split("test")[0][300]
    large = np.kron(image[:, :, 0], np.ones((10, 10), np.uint8))[..., None]
    shares, _, _ = demo.look(network, large)
    smaller, _, _ = demo.look(network, image)
    assert max(shares, key=shares.get) == max(smaller, key=smaller.get)


def test_a_drawing_is_white_on_black():
    drawing = np.zeros((4, 4, 4), np.uint8)
    drawing[1, 2] = (0, 0, 0, 255)
    drawing[3, 3] = (255, 255, 255, 255)  # an eraser's white
    ink = demo.ink(drawing)
    assert ink.shape == (4, 4, 1) and ink[1, 2, 0] == 255 and ink.sum() == 255


def test_the_page_is_served_on_this_machine_alone(network):
    page = demo.build(network)
    demo.launch(page, prevent_thread_lock=True, quiet=True)
    try:
        assert page.local_url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(page.local_url) as answer:
            text = answer.read().decode()
        assert answer.status == 200 and network.name in text
        largest = {"files": ("large.png", bytes(11_000_000))}
        refused = httpx.post(f"{page.local_url}gradio_api/upload", files=largest)
        assert refused.status_code == 413 and "10" in refused.text
    finally:
        page.close()


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "which network: cnn-jax demo --run runs/NAME"),
        (["--model", "resnet5"], "unknown model 'resnet5'"),
        (["--run", "nowhere"], "cannot read nowhere/config.json"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_served(capsys, argv, line):
    assert main(["demo", *argv]) == 2
    assert line in (said := capsys.readouterr().err) and said.count("\n") == 1


def test_a_missing_gradio_is_told(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--model", "resnet18"]) == 2
    assert "uv run --extra demo cnn-jax demo" in capsys.readouterr().err


def test_nothing_drawn_is_told(network):
    import gradio

    page = demo.build(network)
    answer = next(fn for fn in page.fns.values() if fn.targets and fn.targets[0][1] == "click").fn
    with pytest.raises(gradio.Error, match="nothing is drawn yet"):
        answer({"composite": np.zeros((280, 280, 4), np.uint8)})
    told, _, _ = answer(
        {"composite": np.pad(np.full((200, 20, 4), (0, 0, 0, 255), np.uint8), ((40, 40), (130, 130), (0, 0)))}
    )
    assert len(told) == 5
