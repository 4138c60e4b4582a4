"""Optimiser and learning-rate schedule of a recipe, from optax alone.

The learning rate is a function of the step's number and comes to `update` as an argument: a step
that is skipped, its loss not being finite, leaves the optimiser's state as it was and is counted.
"""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import optax

from cnn_jax.errors import UserError
from cnn_jax.recipes import Optimizer, Schedule

# TensorFlow 1's RMSPropOptimizer; Kingma & Ba 2014 (1412.6980), alg. 1; the authors' LAMB.
EPSILON = {"rmsprop": 1e-10, "adamw": 1e-8, "lamb": 1e-6}


def make_schedule(config: Schedule, lr: float, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Step number -> learning rate of peak `lr`, with boundaries and warm-up given in epochs.

    Cosine and polynomial run from the end of the warm-up to the last step; boundaries and `every`
    count from the start. "plateau" is constant here; `make_optimizer` multiplies it down.
    """
    warmup = round(config.warmup * steps_per_epoch)
    rest = max(epochs * steps_per_epoch - warmup, 1)
    if config.kind == "step":
        at = Counter(round(boundary * steps_per_epoch) for boundary in config.boundaries)
        falls = {step: config.factor**times for step, times in at.items()}
        base = optax.piecewise_constant_schedule(lr, falls)
    elif config.kind == "exponential":
        every = max(round(config.every * steps_per_epoch), 1)
        base = optax.exponential_decay(lr, every, config.factor, staircase=True)
    elif config.kind == "cosine":
        # Loshchilov & Hutter 2017 (1608.03983), eq. 5, one period, after the warm-up.
        cosine = optax.cosine_decay_schedule(lr, rest, alpha=config.end)
        base = lambda step: cosine(step - warmup)  # noqa: E731
    elif config.kind == "polynomial":
        base = optax.polynomial_schedule(lr, config.end * lr, config.power, rest, transition_begin=warmup)
    else:
        base = optax.constant_schedule(lr)
    if warmup == 0:
        return base
    start = config.warmup_from * lr
    rise = optax.linear_schedule(start, lr if config.warmup_kind == "linear" else start, warmup)
    return lambda step: jnp.where(jnp.less(step, warmup), rise(step), base(step))


def make_rate(
    config: Optimizer, schedule: Schedule, epochs: int, steps_per_epoch: int, batch_size: int, shift: int = 0
) -> optax.Schedule:
    """Step number -> learning rate, for steps of `batch_size` images, all parts of a step together.

    Step t follows the schedule's step t + `shift` (data.order.Timeline).

    Raises:
      UserError: a shift on "plateau", whose memory is of epochs of one length.
    """
    if shift and schedule.kind == "plateau":
        raise UserError("schedule.kind=plateau averages over epochs of one length: the batch size cannot change")
    lr = config.lr if config.lr_per is None else config.lr * batch_size / config.lr_per
    planned = make_schedule(schedule, lr, epochs, steps_per_epoch)
    return (lambda step: planned(step + shift)) if shift else planned


def decay_mask(params: dict, decay_on: str = "kernels") -> dict:
    """A tree of bools that marks what decays: leaves named `kernel`, with or without depthwise ones, or all.

    A depthwise kernel is known by its layer's name; a stem over gray images has the same shape.
    """

    def decays(path, _) -> bool:
        names = [key.key for key in path]
        is_kernel = names[-1] == "kernel"
        return decay_on == "all" or (is_kernel and (decay_on == "kernels" or "depthwise" not in names))

    return jax.tree_util.tree_map_with_path(decays, params)


def scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
    """updates -> -lr * updates, with `lr` an argument of `update`."""

    def update(updates, state, params=None, **given):
        return jax.tree.map(lambda u: -given["lr"] * u, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def scale_by_shares(shares: dict[str, float]) -> optax.GradientTransformation:
    """updates -> updates times the share of their top-level layer, 1 where none is said."""

    def scaled(path: tuple, update: jax.Array) -> jax.Array:
        return shares.get(path[0].key, 1.0) * update

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))


def make_optimizer(
    config: Optimizer, schedule: Schedule, steps_per_epoch: int, shares: dict[str, float] | None = None
) -> optax.GradientTransformationExtraArgs:
    """The transformation whose `update(grads, state, params, lr=, value=)` gives what to add to the parameters.

    With g the gradient, clipped to the norm `clip`, c the weight decay on what `decay_on` names:

    - sgd: g <- g + c w;  v <- momentum v + g;  w <- w - lr v, PyTorch's and Caffe's order. At a
      constant rate it is AlexNet's v <- 0.9 v - 0.0005 lr w - lr g (Krizhevsky 2012, sec. 5).
    - rmsprop: g <- g + c w;  s <- decay s + (1 - decay) g^2, from 1;  v <- momentum v + lr g / sqrt(s +
      epsilon);  w <- w - v, TensorFlow's: epsilon in the root, the rate in the momentum.
    - adamw: w <- w - lr (m / (sqrt(s) + epsilon) + c w), with Adam's means, corrected for their start.
    - lamb: the same step times |w| / |step| for each decaying parameter. Others, and all if there is no
      decay, take Adam's step as it is, as in timm; so does a parameter that is 0.

    On "plateau" `value` is the step's loss: when the mean over an epoch has not improved by
    `threshold` (relative) for `patience` epochs, the step itself, momentum included, is multiplied by `factor`.
    Epochs are counted in steps that had an effect.

    `shares` of the rate by top-level layer (transfer.rate_shares) multiply the step in the end, decay and momentum
    included.
    """

    mask = partial(decay_mask, decay_on=config.decay_on)
    decay = optax.add_decayed_weights(config.weight_decay, mask=mask)
    rate = scale_by_given_rate()
    epsilon = EPSILON.get(config.kind, 0.0) if config.epsilon is None else config.epsilon
    adam = optax.scale_by_adam(*config.betas, eps=epsilon)
    trust = optax.masked(optax.scale_by_trust_ratio(), mask) if config.weight_decay else optax.identity()
    steps = {
        "sgd": (decay, optax.trace(config.momentum, config.nesterov), rate),
        "rmsprop": (
            decay,
            optax.scale_by_rms(config.decay, epsilon, initial_scale=1.0),
            rate,
            optax.trace(config.momentum),
        ),
        "adamw": (adam, decay, rate),
        "lamb": (adam, decay, trust, rate),
    }[config.kind]
    # A slot in any case, so that clipping can begin on resume.
    steps = (optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(), *steps)
    if schedule.kind == "plateau":
        plateau = optax.contrib.reduce_on_plateau(
            factor=schedule.factor,
            patience=schedule.patience,
            rtol=schedule.threshold,
            accumulation_size=steps_per_epoch,
        )
        steps = (*steps, plateau)
    if shares:
        steps = (*steps, scale_by_shares(shares))
    return optax.with_extra_args_support(optax.chain(*steps))


def plateau_scale(opt_state: optax.OptState) -> jax.Array:
    """What "plateau" multiplied the last step by, () float32; 1 on any other schedule."""
    plateaus = [s for s in jax.tree.leaves(opt_state, is_leaf=_is_plateau) if _is_plateau(s)]
    return plateaus[0].scale if plateaus else jnp.ones(())


def _is_plateau(state) -> bool:
    return isinstance(state, optax.contrib.ReduceLROnPlateauState)
