"""`cnn-jax demo`: a page on this machine where one draws or drops an image and sees what a network makes of it."""

import math
import os
from dataclasses import replace
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from cnn_jax.commands.network import Network, open_network, open_run
from cnn_jax.data.decode import BadImage
from cnn_jax.errors import UserError
from cnn_jax.models.features import extract_features
from cnn_jax.models.structure import structure
from cnn_jax.visualize.cam import gradcam
from cnn_jax.visualize.panels import overlay

TOP = 5
SHOWN = 256  # pixels of a side of what the page shows
LARGEST = "10mb"  # of a file
STROKE = 22  # pixels of the brush on the drawing's 280, as wide as MNIST's


def demo_command(*, model: str | None, folder: str | None, weights: str | None, port: int | None) -> str:
    """Serves the page on 127.0.0.1 until Ctrl-C; what is said in the end.

    Raises:
      UserError: neither a model nor a run, or none that is there; gradio is not installed; the port is taken.
    """
    if model is None and folder is None:
        raise UserError("which network: cnn-jax demo --run runs/NAME, or --model resnet50.tv_in1k")
    # Before gradio is loaded: nothing of this page, or of who uses it, goes to another host.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        import_module("gradio")
    except ImportError:
        raise UserError("the page needs gradio: uv run --extra demo cnn-jax demo, or pip install 'gradio>=5'") from None
    network = open_run(folder, "best")[0] if folder is not None else open_network(str(model), weights)
    page = build(network)
    try:
        launch(page, port)
    except OSError as error:
        raise UserError(f"cannot serve the page ({error}); --port NUMBER names another port") from None
    return "the page is closed"


def launch(page: Any, port: int | None = None, **options: Any) -> None:
    """Serves the page, on this machine alone; `options` are those of gradio's launch."""
    page.launch(server_name="127.0.0.1", server_port=port, share=False, max_file_size=LARGEST, **options)


def build(network: Network) -> Any:
    """The page, gradio.Blocks: a canvas for networks of grey images, a place to drop a file, and three answers."""
    import gradio as gr

    grey = len(network.seen.mean) == 1

    def answer(drawn: Any) -> tuple[dict[str, float], np.ndarray, list[tuple[np.ndarray, str]]]:
        pixels = ink(drawn["composite"]) if isinstance(drawn, dict) else drawn
        if pixels is None or not np.any(pixels):
            raise gr.Error(
                "nothing is drawn yet" if grey else "there is no image yet", duration=5, print_exception=False
            )
        try:
            return look(network, pixels)
        except (UserError, BadImage) as error:
            raise gr.Error(str(error), print_exception=False) from None

    with gr.Blocks(title=f"cnn_jax: {network.name}", analytics_enabled=False) as page:
        gr.Markdown(
            f"# {network.name}\n{network.source}: {network.num_classes:,} classes. Nothing leaves this machine."
        )
        with gr.Row():
            with gr.Column():
                if grey:
                    brush = gr.Brush(default_size=STROKE, colors=["#000000"], color_mode="fixed")
                    canvas = gr.Sketchpad(
                        label="draw", type="numpy", image_mode="RGBA", brush=brush, canvas_size=(280, 280),
                        layers=False, transforms=(), elem_id="canvas",
                    )  # fmt: skip
                    gr.Button("Look at the drawing", variant="primary", elem_id="look")
                dropped = gr.Image(
                    label="or drop an image" if grey else "drop an image", type="numpy", image_mode="RGB"
                )
            with gr.Column():
                classes = gr.Label(num_top_classes=TOP, label="what it is")
                seen = gr.Image(label="where (Grad-CAM)", interactive=False)
        layers = gr.Gallery(label="layer by layer: mean activations", columns=6, height="auto", object_fit="contain")
        answers = [classes, seen, layers]
        if grey:
            next(b for b in page.blocks.values() if isinstance(b, gr.Button)).click(answer, canvas, answers)
        dropped.change(answer, dropped, answers)
    return page


def ink(drawing: np.ndarray | None) -> np.ndarray | None:
    """A drawing (H, W, 4) uint8, black on nothing, as MNIST has them: (H, W, 1) uint8, white on black."""
    if drawing is None:
        return None
    return drawing[..., 3:] * (drawing[..., :3].max(-1, keepdims=True) < 128)


def look(network: Network, pixels: np.ndarray) -> tuple[dict[str, float], np.ndarray, list[tuple[np.ndarray, str]]]:
    """An image (H, W, C) uint8 -> the shares of its likeliest classes, Grad-CAM over the image, each layer's map.

    Pictures are (SHOWN, SHOWN, 3) uint8; a layer's map is the mean over its channels, from its least to its largest.
    """
    seen, model, variables = network.seen, network.model, network.variables
    if min(pixels.shape[:2]) < seen.resize:  # framed, not enlarged, as the run's own test images were
        seen = replace(seen, resize=min(pixels.shape[:2]))
    small, images = seen.pixels(pixels), jnp.asarray(seen(pixels))
    logits: Any = model.apply(variables, images, train=False)
    shares = np.asarray(jax.nn.softmax(logits)[0])
    names = network.classes or tuple(map(str, range(network.num_classes)))
    told = {names[place]: float(shares[place]) for place in np.argsort(-shares)[:TOP]}
    where = overlay(small, np.asarray(gradcam(model, variables, images)[0]))
    taps = structure(model, images.shape[1:]).taps
    maps = extract_features(
        model, variables, images, [name for name, (*places, _) in taps.items() if math.prod(places) > 1]
    )
    pictures = [(_enlarged(_levels(np.asarray(found[0]).mean(-1))), name) for name, found in maps.items()]
    return told, _enlarged(where), pictures


def _levels(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return np.rint(255 * (values - low) / (high - low or 1)).astype(np.uint8)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("RGB").resize((SHOWN, SHOWN), Image.Resampling.NEAREST))
