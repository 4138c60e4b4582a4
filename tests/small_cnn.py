"""Three convolutions with a pool that overlaps and one that does not, and what other libraries make of them."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.layers import max_pool, tap


class SmallCNN(nn.Module):
    """(B, H, W, 3) -> (B, 5); taps conv1 to conv3."""

    num_classes: int = 5
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        layer = nn.remat(Rectified) if self.remat else Rectified
        x = tap(self, "conv1", layer(8, name="layer1")(x))
        x = max_pool(x, 3, 2, 1)
        x = tap(self, "conv2", layer(12, name="layer2")(x))
        x = max_pool(x, 2)
        x = tap(self, "conv3", layer(16, name="layer3")(x))
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


class Rectified(nn.Module):
    """A 3x3 convolution and a ReLU."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.relu(nn.Conv(self.features, (3, 3), padding=1, name="conv")(x))


def small_variables() -> dict:
    """He's normal weights; the head's twenty times as large, biases a tenth of a standard normal."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        fan = np.prod(shape[:-1]) if len(shape) > 1 else 1
        return (rng.standard_normal(shape) * (2 / fan) ** 0.5).astype(np.float32)

    params: dict = {}
    for number, (before, after) in enumerate(((3, 8), (8, 12), (12, 16)), start=1):
        params[f"layer{number}"] = {"conv": {"kernel": draw(3, 3, before, after), "bias": draw(after) * 0.1}}
    params["head"] = {"kernel": 20 * draw(16, 5), "bias": draw(5) * 0.1}
    return {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)}


def small_images() -> np.ndarray:
    """(2, 24, 24, 3) standard normal float32."""
    return np.random.default_rng(1).standard_normal((2, 24, 24, 3)).astype(np.float32)


TARGETS = np.array([1, 3])


def attributions() -> dict[str, np.ndarray]:
    """Captum's and pytorch-grad-cam's for TARGETS (tests/golden/README.md)."""
    with np.load(Path(__file__).parent / "golden" / "attributions" / "small.npz") as file:
        return dict(file)
