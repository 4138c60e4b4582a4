"""One training step and one evaluation step, as pure functions of arrays.

Bind the keyword arguments with functools.partial and jit the rest.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from cnn_jax.data.order import past_tail
from cnn_jax.evaluation.metrics import predictions
from cnn_jax.training.state import TrainState

MIX = 0x6D697800  # set apart from what images draw one by one
Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Per image, (B, C) logits and (B, C) label probabilities -> (B,)."""
    return optax.softmax_cross_entropy(logits, labels)


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    apply: Callable,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Loss,
    preprocess: Callable[[jax.Array, jax.Array | None], jax.Array],
    num_classes: int,
    epoch_size: int,
    label_smoothing: float = 0.0,
    aux_weight: float = 0.3,
    mix: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on `batch`: `image` (B, H, W, C) uint8, `label` (B,) int32 in [0, num_classes).

    `apply` is the model's, `preprocess(images, key)` augments and normalises, `mix(key, images,
    labels)` mixes images and their label probabilities, `loss` maps logits and label probabilities
    to a value per image. Step t's keys come from fold_in(state.key, t). An epoch has `epoch_size`
    images, of which a tail that fills no batch is passed over.

    Auxiliary heads' losses are added times `aux_weight` (0.3: Szegedy 2014, 1409.4842, sec. 5).

    Returns the next state and device scalars: `loss`, the batch mean, and `top1`, its accuracy
    in [0, 1], both of the augmented images before the step.
    """
    key_augment, key_dropout = jax.random.split(jax.random.fold_in(state.key, state.step))
    images = preprocess(batch["image"], key_augment)
    labels = optax.smooth_labels(jax.nn.one_hot(batch["label"], num_classes), label_smoothing)
    if mix is not None:
        images, labels = mix(jax.random.fold_in(key_augment, MIX), images, labels)

    def objective(params):
        logits, changed = apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats", "aux_logits"],
            rngs={"dropout": key_dropout},
        )
        value = loss(logits, labels).mean()
        for aux_logits in jax.tree.leaves(changed.get("aux_logits", {})):
            value += aux_weight * loss(aux_logits, labels).mean()
        return value, (logits, changed.get("batch_stats", state.batch_stats))

    (value, (logits, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=value)
    past = partial(past_tail, size=epoch_size, batch_size=len(labels))
    state = state.replace(
        step=state.step + 1,
        seen=past(past(state.seen) + len(labels)),  # first, too: a resumed run may bring larger batches
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return state, {"loss": value, "top1": jnp.mean(logits.argmax(-1) == batch["label"])}


def eval_step(
    variables: dict,
    batch: dict[str, jax.Array],
    *,
    apply: Callable,
    loss: Loss,
    preprocess: Callable[[jax.Array, jax.Array | None], jax.Array],
    num_classes: int,
) -> dict[str, jax.Array]:
    """The record of each image of a batch, (B,) each: evaluation.metrics.predictions, with `label` and `good`.

    `loss` is that of the unsmoothed label; `good` is False where another image stands in for one that is bad.
    """
    logits = apply(variables, preprocess(batch["image"], None), train=False)
    label = batch["label"]
    own_loss = {"loss": loss(logits, jax.nn.one_hot(label, num_classes))}
    return predictions(logits, label) | own_loss | {"label": label, "good": batch["good"]}
