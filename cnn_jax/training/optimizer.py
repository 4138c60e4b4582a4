"""Optimiser and learning-rate schedule of a recipe, from optax alone."""

from collections import Counter

import jax
import jax.numpy as jnp
import optax

from cnn_jax.errors import UserError
from cnn_jax.recipes import Optimizer, Schedule


def make_schedule(config: Schedule, lr: float, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Step number -> learning rate, with boundaries and warm-up given in epochs.

    "plateau" is constant here; `make_optimizer` multiplies it down.
    """
    warmup = round(config.warmup * steps_per_epoch)
    total = epochs * steps_per_epoch
    if config.kind == "step":
        at = Counter(round(boundary * steps_per_epoch) for boundary in config.boundaries)
        falls = {step: config.factor**times for step, times in at.items()}
        base = optax.piecewise_constant_schedule(lr, falls)
    elif config.kind == "cosine":
        # Loshchilov & Hutter 2017 (1608.03983), eq. 5, one period, after the warm-up.
        cosine = optax.cosine_decay_schedule(lr, max(total - warmup, 1))
        base = lambda step: cosine(step - warmup)  # noqa: E731
    else:
        base = optax.constant_schedule(lr)
    if warmup == 0:
        return base
    rise = optax.linear_schedule(0.0, lr, warmup)
    return lambda step: jnp.where(jnp.less(step, warmup), rise(step), base(step))


def is_kernel(params: dict) -> dict:
    """A tree of bools that marks the leaves named `kernel`: what L2 applies to."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(
    config: Optimizer, schedule: Schedule, epochs: int, steps_per_epoch: int, shift: int = 0
) -> tuple[optax.GradientTransformationExtraArgs, optax.Schedule]:
    """SGD with momentum and L2 on kernels, and the schedule it follows.

    g <- g + weight_decay * w;  v <- momentum * v + g;  w <- w - lr * v, as PyTorch and Caffe
    order it. On "plateau" `update` needs `value=`, the step's loss: when the mean over an epoch
    has not improved by 1e-4 (relative) for `patience` epochs, the rate is multiplied by `factor`.

    Step t follows the schedule's step t + `shift` (data.order.Timeline).

    Raises:
      UserError: a shift on "plateau", whose memory is of epochs of one length.
    """
    if shift and schedule.kind == "plateau":
        raise UserError("schedule.kind=plateau averages over epochs of one length: the batch size cannot change")
    planned = make_schedule(schedule, config.lr, epochs, steps_per_epoch)
    rate = (lambda step: planned(step + shift)) if shift else planned
    steps = [
        optax.add_decayed_weights(config.weight_decay, mask=is_kernel),
        optax.sgd(rate, momentum=config.momentum, nesterov=config.nesterov),
    ]
    if schedule.kind == "plateau":
        steps.append(
            optax.contrib.reduce_on_plateau(
                factor=schedule.factor, patience=schedule.patience, accumulation_size=steps_per_epoch
            )
        )
    return optax.with_extra_args_support(optax.chain(*steps)), rate


def learning_rate(rate: optax.Schedule, opt_state: optax.OptState, step: int) -> float:
    """The rate that `step` uses, a plateau's reductions included."""
    plateaus = [s for s in jax.tree.leaves(opt_state, is_leaf=_is_plateau) if _is_plateau(s)]
    return float(jnp.asarray(rate(step))) * (float(plateaus[0].scale) if plateaus else 1.0)


def _is_plateau(state) -> bool:
    return isinstance(state, optax.contrib.ReduceLROnPlateauState)
