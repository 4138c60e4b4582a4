"""Test protocols: what a network sees of an image, and how its answers become one.

On the host an image becomes views; on the device the network's answers to them are averaged.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data.augment import fit, normalize
from cnn_jax.data.decode import Interpolation, center, resize_shorter
from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.evaluation.metrics import predictions

STEP = 32  # pixels between two lengths of a densely evaluated image's longer side
LONGEST = 2  # times its shorter side


def framed(pixels, size, resize, resized) -> list[np.ndarray]:
    """The image as it is; the device brings it to the network's size (augment.fit)."""
    del size, resize, resized
    return [pixels[None]]


def center_crop(pixels, size, resize, resized) -> list[np.ndarray]:
    """The middle of the image, its shorter side at `resize`."""
    return [center(resized(pixels, resize), size, size)[None]]


def ten_crop(pixels, size, resize, resized) -> list[np.ndarray]:
    """Corners and centre of the central square of `resize` pixels (Krizhevsky 2012, sec. 2 and 4.1)."""
    return [np.stack(five_crops(center(resized(pixels, resize), resize, resize), size))]


def googlenet_144(pixels, size, resize, resized) -> list[np.ndarray]:
    """4 scales x 3 squares x (5 crops and the square itself), mirrored 144 (Szegedy 2014, sec. 7)."""
    del resize
    views = []
    for side in in_proportion((256, 288, 320, 352), size):
        image = resized(pixels, side)
        for square in (image[:side, :side], center(image, side, side), image[-side:, -side:]):
            views += [*five_crops(square, size), resized(square, size)]
    return [np.stack(views)]


def dense(pixels, size, resize, resized) -> list[np.ndarray]:
    """The whole image at the test scale Q = `resize` (Simonyan 2014, sec. 3.2)."""
    del size
    return [few_shapes(resized(pixels, resize))[None]]


def multi_scale(pixels, size, resize, resized) -> list[np.ndarray]:
    """Q in {S - 32, S, S + 32}, for training at a fixed S = `resize` (Simonyan 2014, sec. 4.2)."""
    del size
    return at_scales(pixels, (resize - 32, resize, resize + 32), resized)


def multi_scale_jittered(pixels, size, resize, resized) -> list[np.ndarray]:
    """Q in {256, 384, 512} times `resize` / 256, for training at S in [256, 512] (Simonyan 2014, sec. 4.2)."""
    del size
    return at_scales(pixels, (resize, resize * 3 // 2, resize * 2), resized)


def multi_scale_resnet(pixels, size, resize, resized) -> list[np.ndarray]:
    """Shorter sides {224, 256, 384, 480, 640} (He 2015, sec. 3.4)."""
    del resize
    return at_scales(pixels, in_proportion((224, 256, 384, 480, 640), size), resized)


def five_crops(square: np.ndarray, size: int) -> list[np.ndarray]:
    """The four corners and the centre, (size, size, C) each, of an image."""
    low, high = slice(None, size), slice(square.shape[0] - size, None)
    corners = [square[rows, columns] for rows in (low, high) for columns in (low, high)]
    return [*corners, center(square, size, size)]


def in_proportion(scales: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Scales that a paper gives for crops of 224 pixels, for a network of another size."""
    return tuple(round(scale * size / 224) for scale in scales)


def at_scales(pixels: np.ndarray, scales: tuple[int, ...], resized: Callable) -> list[np.ndarray]:
    """The whole image with its shorter side at each of `scales`."""
    return [few_shapes(resized(pixels, scale))[None] for scale in scales]


def few_shapes(image: np.ndarray) -> np.ndarray:
    """The middle of an image whose longer side is the shorter one and a multiple of 32, at most twice as long.

    A batch has one shape, so images are grouped by it: cutting less than 32 pixels off the longer
    side leaves few groups. The papers take the whole image.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    height, width = (min(s - (s - shorter) % STEP, LONGEST * shorter) for s in (height, width))
    return center(image, height, width)


@dataclass(frozen=True)
class Protocol:
    """One row of PROTOCOLS, or with make_protocol's `views` what evaluates.

    `views` turns an image (H, W, C) uint8 into arrays (V, h, w, C) uint8, one for each size of view;
    every view is one answer of the network. `mirror`: and so is its mirror image. `dense`: views have
    sizes of their own and the network is applied at all positions (`dense=True`, where it has that
    option); else the device brings them to `size`. `takes_resize`: the shorter side can be chosen.
    """

    views: Callable[..., list[np.ndarray]]
    mirror: bool = True
    dense: bool = False
    takes_resize: bool = True
    size: int = 0

    def places(self, views: list[np.ndarray]) -> float:
        """How much of a batch an image takes, in network inputs of the usual size."""
        inputs = sum(len(v) * (v[0, :, :, 0].size / self.size**2 if self.dense else 1) for v in views)
        return inputs * (2 if self.mirror else 1)


PROTOCOLS = {
    "fit": Protocol(framed, mirror=False, takes_resize=False),
    "center": Protocol(center_crop, mirror=False),
    "ten_crop": Protocol(ten_crop),
    "googlenet_144": Protocol(googlenet_144, takes_resize=False),
    "dense": Protocol(dense, dense=True),
    "multi_scale": Protocol(multi_scale, dense=True),
    "multi_scale_jittered": Protocol(multi_scale_jittered, dense=True),
    "multi_scale_resnet": Protocol(multi_scale_resnet, dense=True, takes_resize=False),
}


def make_protocol(name: str, size: int, resize: int, interpolation: Interpolation) -> Protocol:
    """A protocol for a network that takes (size, size) images.

    `resize` is the shorter side before crops are taken, by `interpolation`; protocols whose scales are given do not
    look at it.

    Raises:
      UserError: no such protocol, or a `resize` that it cannot use.
    """
    if name not in PROTOCOLS:
        raise UserError(did_you_mean("protocol", name, PROTOCOLS))
    if name == "ten_crop" and resize < size:
        raise UserError(f"--protocol ten_crop takes crops of {size} pixels, which a shorter side of {resize} has not")
    row, resized = PROTOCOLS[name], partial(resize_shorter, interpolation=interpolation)
    return replace(row, size=size, views=partial(row.views, size=size, resize=resize, resized=resized))


def predict(
    variables: Any,
    views: list[jax.Array],
    labels: jax.Array,
    *,
    apply: Callable,
    protocol: Protocol,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> dict[str, jax.Array]:
    """The records (see metrics.predictions) of a batch: arrays (B, V, h, w, C) uint8 and (B,) labels.

    The network's probabilities are averaged over all views, after the softmax, as Krizhevsky 2012
    (sec. 4.1), Szegedy 2014 (sec. 7) and Simonyan 2014 (sec. 3.2, 4.2) do.
    """
    answers = []
    for group in views:
        seen = jnp.concatenate([group, group[:, :, :, ::-1]], 1) if protocol.mirror else group
        batch, count = seen.shape[:2]
        images = seen.reshape(batch * count, *seen.shape[2:])
        if not protocol.dense:
            images = fit(images, (protocol.size, protocol.size))
        logits = apply(variables, normalize(images, mean, std), train=False)
        answers.append(logits.reshape(batch, count, -1))
    logits = jnp.concatenate(answers, 1)
    if logits.shape[1] == 1:
        return predictions(logits[:, 0], labels)
    mean_probability = jax.nn.logsumexp(jax.nn.log_softmax(logits), 1) - jnp.log(logits.shape[1])
    return predictions(mean_probability, labels)
