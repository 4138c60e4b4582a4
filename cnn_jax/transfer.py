"""Transfer learning: which layers of a network are trained and how fast, features computed once, a linear probe."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.models.structure import structure

PROBE_STEPS = 200  # of L-BFGS at most; features of a few thousand images converge in some dozens


def layer_names(model: nn.Module, image: tuple[int, int, int]) -> tuple[str, ...]:
    """The top-level layers that own parameters, in the order of the network: "stem", "stage1_block1", ..., "head".

    `image` is the (H, W, C) that it is for. Auxiliary heads are left out.
    """
    layers = structure(model, image).layers
    return tuple(dict.fromkeys(name for name in (layer.path.split("/")[0] for layer in layers) if name[:3] != "aux"))


def before(names: Sequence[str], first: str) -> tuple[str, ...]:
    """The names in front of the first that is `first` or a block of it: before "stage3" come "stem" to "stage2_block2".

    Raises:
      UserError: none is or does; the message names the nearest.
    """
    for place, name in enumerate(names):
        if name == first or name.startswith(f"{first}_"):
            return tuple(names[:place])
    raise UserError(did_you_mean("layer", first, names))


def rate_shares(names: Sequence[str], frozen: Sequence[str], decay: float = 1.0) -> dict[str, float]:
    """The share of the learning rate that each layer has: 0 if `frozen`, else `decay` for each layer behind it.

    Howard & Ruder 2018 (1801.06146), sec. 3.2, divide the rate by 2.6 from layer to layer.
    """
    last = len(names) - 1
    return {name: 0.0 if name in frozen else decay ** (last - place) for place, name in enumerate(names)}


def norms_in(variables: Mapping, names: Sequence[str]) -> tuple[str, ...]:
    """Paths of the batch norms of these layers, for BatchNorm's `frozen`."""
    paths = {path[:-1] for path in flatten_dict(variables.get("batch_stats", {}))}
    return tuple(sorted("/".join(path) for path in paths if path[0] in names))


def pooled_features(model: nn.Module, variables: Mapping, batches: Iterator[np.ndarray | jax.Array]) -> np.ndarray:
    """What a network with `num_classes=0` makes of images, computed once: (N, D) float32 on the host.

    `batches` are (B, H, W, C) as the network takes them; all but the last of one size compile once.
    """
    apply = jax.jit(partial(model.apply, train=False))
    return np.concatenate([np.asarray(apply(variables, images), np.float32) for images in batches])


def linear_probe(
    features: np.ndarray | jax.Array, labels: np.ndarray | jax.Array, classes: int, l2: float = 1e-3
) -> dict[str, jax.Array]:
    """Multinomial logistic regression on fixed features, by L-BFGS over all of them at once.

    `features` (N, D), `labels` (N,) integers in [0, classes). `l2` times half the squared weights joins the mean
    loss, as features with mean 0 and deviation 1 see it; their scales are then moved into the weights.

    Returns `{"kernel": (D, classes), "bias": (classes,)}`, float32, as the head of a network takes it:
    `{"params": params | {"head": linear_probe(...)}}`.

    Raises:
      UserError: shapes that do not fit, or labels out of range.
    """
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise UserError(f"a probe takes features (N, D) and labels (N,), not {features.shape} and {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"labels must be at least 0 and below {classes}, not {labels.min()} to {labels.max()}")
    return _probe(features, labels, classes, l2)


@partial(jax.jit, static_argnums=2)
def _probe(features: jax.Array, labels: jax.Array, classes: int, l2: jax.Array) -> dict[str, jax.Array]:
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    seen = (features - mean) / deviation

    def objective(head: dict) -> jax.Array:
        logits = jnp.dot(seen, head["kernel"], precision="highest") + head["bias"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean() + l2 / 2 * jnp.sum(head["kernel"] ** 2)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry: tuple) -> tuple:
        head, state, _ = carry
        value, grad = value_and_grad(head, state=state)
        updates, state = solver.update(grad, state, head, value=value, grad=grad, value_fn=objective)
        return optax.apply_updates(head, updates), state, optax.tree.norm(grad)

    def going_on(carry: tuple) -> jax.Array:
        _, state, norm = carry
        return (optax.tree.get(state, "count") < PROBE_STEPS) & (norm > 1e-5)

    head = {"kernel": jnp.zeros((features.shape[1], classes)), "bias": jnp.zeros(classes)}
    head, _, _ = jax.lax.while_loop(going_on, step, (head, solver.init(head), jnp.asarray(jnp.inf)))
    kernel = head["kernel"] / deviation[:, None]
    return {"kernel": kernel, "bias": head["bias"] - mean @ kernel}
