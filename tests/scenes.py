"""Digits of mnist_5k among pieces of other digits on a larger canvas, after Mnih et al. 2014 (1406.6247, sec. 4.1).

`uv run python tests/scenes.py docs/images/visualize.png` trains a network on them and draws what it looks at.
"""

import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax

from cnn_jax import visualize
from cnn_jax.data.mnist_5k import read_split
from cnn_jax.models.resnet_cifar import ResNetCifar

SIDE, DIGIT, PIECE, PIECES = 48, 20, 8, 12  # pixels; a digit fills 20x20 of its 28x28


def scenes(split: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (count, 48, 48, 1) float32 in [-1, 1], labels, and where the digit is, (count, 48, 48) bool.

    A digit's square is 17 % of the image, and as much ink is spread over the rest.
    """
    rng = np.random.default_rng(seed)
    digits, labels = read_split(split)
    digits = digits[:, 4:-4, 4:-4, 0]
    chosen = rng.integers(len(digits), size=count)
    images, inside = np.zeros((count, SIDE, SIDE), np.uint8), np.zeros((count, SIDE, SIDE), bool)
    for image, where, number in zip(images, inside, chosen, strict=True):
        for other in rng.integers(len(digits), size=PIECES):
            row, column = rng.integers(DIGIT - PIECE + 1, size=2)
            piece = digits[other, row : row + PIECE, column : column + PIECE]
            down, right = rng.integers(SIDE - PIECE + 1, size=2)
            image[down : down + PIECE, right : right + PIECE] = piece
        down, right = rng.integers(SIDE - DIGIT + 1, size=2)
        place = np.s_[down : down + DIGIT, right : right + DIGIT]
        image[place], where[place] = digits[number], True
    return (images[..., None] / 127.5 - 1).astype(np.float32), labels[chosen], inside


def trained(model: nn.Module, variables: dict, steps: int, batch: int = 64) -> dict:
    """Variables after steps of Adam on scenes that are new in each."""
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @jax.jit
    def step(variables, state, images, labels):
        def loss(params):
            now = variables | {"params": params}
            logits, moved = model.apply(now, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved

        (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradient, state)
        return {"params": optax.apply_updates(variables["params"], updates), **moved}, state, value

    state = optimizer.init(variables["params"])
    for number in range(steps):
        images, labels, _ = scenes("train", batch, number)
        variables, state, value = step(variables, state, images, labels)
    return variables


def draw_sheet(path: Path, model: nn.Module, variables: dict, drawn: dict) -> None:
    """A picture of every method on four scenes; `drawn` are random variables."""
    images, labels, _ = scenes("test", 64, seed=10**6)
    images, labels = images[[3, 7, 11, 20]], labels[[3, 7, 11, 20]]
    pixels = ((images + 1) * 127.5).round().astype(np.uint8)
    of, fine = (model, variables, images, labels), {"layer": "stage2"}
    maps = {
        "saliency": visualize.saliency(*of),
        "guided_backprop": visualize.guided_backprop(*of),
        "integrated_gradients": visualize.integrated_gradients(*of),
        "occlusion": visualize.occlusion(*of, window=12, stride=4),
        "gradcam": visualize.gradcam(*of),
        "gradcam of random weights": visualize.gradcam(model, drawn, images, labels),
        "gradcam++": visualize.gradcam_plus_plus(*of),
        "layercam of stage2": visualize.layercam(*of, **fine),
    }
    made = [visualize.activation_maximization(model, variables, each, (SIDE, SIDE, 1)) for each in labels.tolist()]
    grey = {
        "deconvnet: stage2's strongest activation": visualize.deconvnet(model, variables, images, **fine),
        f"activation_maximization of {', '.join(map(str, labels))}": np.clip(np.stack(made), -1, 1),
        "first filters": visualize.first_filters(model, variables, (SIDE, SIDE, 1)),
    }
    strips = {"what the network sees": pixels}
    strips |= {
        name: np.stack([visualize.overlay(*both) for both in zip(pixels, np.asarray(found), strict=True)])
        for name, found in maps.items()
    }
    strips |= {
        name: np.stack([visualize.as_picture(each) for each in np.asarray(found)]) for name, found in grey.items()
    }
    panels = {name: visualize.tiles(strip, min(len(strip), 8)) for name, strip in strips.items()}
    visualize.draw_panels(panels, path, columns=3)


if __name__ == "__main__":
    network = ResNetCifar(1)
    at_random = jax.jit(lambda key: network.init(key, scenes("test", 1, 0)[0], train=False))(jax.random.key(0))
    draw_sheet(Path(sys.argv[1]), network, trained(network, at_random, steps=300), at_random)
