"""One training step and one evaluation step: pure functions of arrays, for a Program, which is static to jit.

step = jax.jit(partial(train_step, program), donate_argnums=0)
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnn_jax.data.engines import Batch
from cnn_jax.data.order import past_tail
from cnn_jax.errors import UserError
from cnn_jax.recipes.uses import LABELS
from cnn_jax.training.optimizer import plateau_scale
from cnn_jax.training.program import Program
from cnn_jax.training.state import TrainState

METRICS = ("loss", "figure", "grad_norm", "lr", "skipped")  # what a step tells, in the order of `told`
RANKS = {"class": 1, "captions": 3, "mask": 3}  # of labels, by their kind
MUTABLE = ["batch_stats", "aux_logits"]


def train_step(program: Program, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of `program` on `batch`: `image` (B, H, W, C) uint8, `label` (B, ...) integers in [0, classes).

    `program.task.inputs(batch, key)` augments and normalises, `program.task.loss` gives the mean loss of what
    `program.apply` makes of them, `program.rate(step)` the learning rate. Step t's keys come from
    fold_in(state.key, t).

    `config.optimizer.accumulate` parts of the batch follow one another, for a batch whose activations do not fit, and
    the mean of their gradients makes the step. Part j has the images j, j + accumulate, ... Batch norm
    and mixing see one part at a time: statistics are those of B / accumulate images, and the running
    ones move once a part.

    `config.optimizer.ema` keeps moving averages of parameters and statistics, d * average + (1 - d) * value with
    d = min(ema, (1 + t) / (10 + t)) after step t, counted from 0 (TensorFlow's rule, so that the
    random start is soon forgotten).

    If the loss or the gradient's norm is not finite, nothing but `step`, `seen` and `skipped` changes.

    Returns the next state and device scalars: `loss`, the batch mean, and `figure`, the task's (`task.trained`) in
    [0, 1], both of the augmented images before the step, `grad_norm` before any clipping, `lr`, and
    `skipped`, the state's.

    Raises (while it is traced):
      UserError: arrays of another rank or type, or images with the channels first.
    """
    _check(batch, RANKS[LABELS[program.config.task]])
    config, accumulate = program.config, program.config.optimizer.accumulate
    key = jax.random.fold_in(state.key, state.step)

    def gradient(batch_stats, batch, key) -> tuple[Any, Any, dict[str, jax.Array]]:
        key_augment, key_dropout = jax.random.split(key)
        inputs = program.task.inputs(batch, key_augment)

        def objective(params):
            variables = {"params": program.held(params), "batch_stats": batch_stats}
            apply = partial(program.apply, variables, train=True, mutable=MUTABLE, rngs={"dropout": key_dropout})
            value, figure, changed = program.task.loss(apply, inputs)
            return value, (figure, changed.get("batch_stats", batch_stats))

        (value, (figure, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        return grads, batch_stats, {"loss": value, "figure": figure}

    if accumulate == 1:
        grads, batch_stats, metrics = gradient(state.batch_stats, batch, key)
    else:

        def add(carry, part):
            batch_stats, sums = carry
            number, images = part
            grads, batch_stats, metrics = gradient(batch_stats, images, jax.random.fold_in(key, number))
            return (batch_stats, jax.tree.map(jnp.add, sums, (grads, metrics))), None

        # Every accumulate-th image, not a run of them: so no image leaves its device.
        parts = {name: v.reshape(-1, accumulate, *v.shape[1:]).swapaxes(0, 1) for name, v in batch.items()}
        zeros = jax.tree.map(jnp.zeros_like, (state.params, {"loss": jnp.zeros(()), "figure": jnp.zeros(())}))
        (batch_stats, sums), _ = jax.lax.scan(add, (state.batch_stats, zeros), (jnp.arange(accumulate), parts))
        grads, metrics = jax.tree.map(lambda total: total / accumulate, sums)

    norm, lr = optax.tree.norm(grads), jnp.asarray(program.rate(state.step))
    updates, opt_state = program.optimizer.update(grads, state.opt_state, state.params, lr=lr, value=metrics["loss"])
    changed = {
        "params": optax.apply_updates(state.params, updates),
        "batch_stats": batch_stats,
        "opt_state": opt_state,
    }
    if state.ema:
        share = 1 - jnp.minimum(config.optimizer.ema, (1 + state.step) / (10 + state.step))
        values = {name: changed[name] for name in state.ema}
        changed["ema"] = optax.incremental_update(values, state.ema, share)
    fine = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
    changed = jax.tree.map(partial(jnp.where, fine), changed, {name: getattr(state, name) for name in changed})
    metrics |= {
        "grad_norm": norm,
        "lr": lr * plateau_scale(changed["opt_state"]),
        "skipped": jnp.where(fine, 0, state.skipped + 1),
    }
    size = len(batch["label"])
    past = partial(past_tail, size=program.timeline.size, batch_size=size)
    state = state.replace(
        step=state.step + 1,
        seen=past(past(state.seen) + size),  # first, too: a resumed run may bring larger batches
        skipped=metrics["skipped"],
        **changed,
    )
    return state, metrics


def told(metrics: dict[str, jax.Array]) -> jax.Array:
    """METRICS of a step as one float32 array (5,), or (seeds, 5), which the host fetches at once."""
    return jnp.stack([metrics[name].astype(jnp.float32) for name in METRICS], -1)


def eval_step(program: Program, variables: dict, batch: Batch) -> dict[str, jax.Array]:
    """The record of each image of a batch, (B, ...) each: what `program.task.record` notes, with `good`.

    `good` is False where another image stands in for one that is bad.
    """
    return program.task.record(partial(program.apply, variables, train=False), batch) | {"good": batch["good"]}


def moments_step(program: Program, variables: dict, batch: Batch, key: jax.Array) -> dict:
    """Mean and variance of one augmented batch in every batch norm, in the tree of `batch_stats`."""
    key_augment, key_dropout = jax.random.split(key)
    inputs = program.task.inputs(batch, key_augment)
    apply = partial(program.moments, variables, train=True, mutable=MUTABLE, rngs={"dropout": key_dropout})
    _, _, changed = program.task.loss(apply, inputs)
    return changed["batch_stats"]


def precise_statistics(found: Iterable[dict]) -> dict:
    """`batch_stats` of the population, from what `moments_step` says of some batches of one size.

    The mean of means; the mean of variances plus the variance of means (Wu & Johnson 2021, 2105.07576,
    sec. 3). Not E[x^2] - E[x]^2, which float32 loses where a mean is large.
    """
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    return jax.tree.map(
        lambda norm: {"mean": norm["mean"].mean(0), "var": norm["var"].mean(0) + norm["mean"].var(0)},
        batches,
        is_leaf=_is_norm,
    )


def _is_norm(tree: Any) -> bool:
    return isinstance(tree, dict) and set(tree) == {"mean", "var"}


def _check(batch: Batch, rank: int) -> None:
    images, labels = batch["image"], batch["label"]
    given = f"not {images.dtype} {images.shape}"
    if images.ndim != 4:
        raise UserError(f"a batch's images must be (B, H, W, C), {given}")
    if images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        raise UserError(f"a batch's images must have their channels last, (B, H, W, C), {given}")
    if images.dtype != jnp.uint8:
        raise UserError(f"a batch's images must be uint8, 0 to 255, {given}")
    if labels.shape[:1] != images.shape[:1] or labels.ndim != rank or not jnp.issubdtype(labels.dtype, jnp.integer):
        right = f"({len(images)},{' ..., ...' * (rank == 3)})"
        raise UserError(f"a batch's labels must be integers {right}, not {labels.dtype} {labels.shape}")
