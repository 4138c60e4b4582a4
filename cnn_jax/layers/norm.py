"""Batch normalisation and local response normalisation."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import UserError
from cnn_jax.layers.channels import affine, moments
from cnn_jax.layers.lowered import Lowering, chosen
from cnn_jax.layers.options import Checked, Count, Factor, Globs, Rate


class BatchNorm(Checked):
    """Batch normalisation over (B, H, W) or B (Ioffe & Szegedy 2015, 1502.03167, Alg. 1 and 2).

    (B, ..., C) -> (B, ..., C) in `dtype`. Parameters `scale`, `bias` and the running `mean`,
    `var` in the collection `batch_stats` are (C,) float32, and statistics are computed in
    float32 whatever the compute type. Three separate switches:

    - `train` (of the call): normalise with the batch's statistics, not the running ones;
    - `update`: let the running statistics follow the batch's. None means "as `train` says".
      They only move where the caller makes `batch_stats` mutable;
    - `frozen`: globs over module paths such as ("stem/*", "stage1*"). A matching layer uses its
      running statistics and leaves them alone, whatever the other two say.

    Under jit with a sharded batch the statistics are those of the global batch. `group_size`
    makes them those of consecutive groups of that many images (ghost batch norm), with the
    same numbers on one device or many; the running statistics follow the mean over groups.

    `momentum` is Flax's, 1 - PyTorch's: new = momentum * old + (1 - momentum) * batch.
    `unbiased` stores n / (n - 1) times the batch variance, as PyTorch does; normalisation
    itself always uses the biased one, as both do.

    `folded` is for models.fold alone: statistics are gone into `scale` and `bias`, and at the module
    paths that it names `scale` into the layer before.

    Raises:
      UserError: the batch does not divide into groups; `train` of a folded norm.
    """

    momentum: Rate = 0.9
    epsilon: Factor = 1e-5
    update: bool | None = None
    frozen: Globs = ()
    group_size: Count | None = None
    unbiased: bool = False
    folded: tuple[str, ...] | None = None
    scale_init: Callable = nn.initializers.ones_init()
    bias_init: Callable = nn.initializers.zeros_init()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        channels, path = x.shape[-1], "/".join(self.path)
        if self.folded is None or path not in self.folded:
            scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", self.bias_init, (channels,), jnp.float32)
        if self.folded is not None:
            if train:
                raise UserError("a network whose batch norms are folded is for train=False; train the one it came from")
            return (x + bias if path in self.folded else x * scale + bias).astype(self.dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        frozen = any(fnmatchcase(path, pattern) for pattern in self.frozen)
        use_batch = train and not frozen
        update = (train if self.update is None else self.update) and not frozen

        batch, by = x.shape[0], chosen()
        size = self.group_size or batch
        if (use_batch or update) and batch % size:
            raise UserError(f"a batch of {batch} does not divide into batch-norm groups of {size}")
        mean, var = running_mean.value[None], running_var.value[None]  # (G, C)
        if use_batch or update:
            found = _statistics(x, size, by)
            if use_batch:
                mean, var = found
            if update and not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                count = x.size // channels * size // batch if self.unbiased else None
                running = running_mean.value, running_var.value
                running_mean.value, running_var.value = _follow(running, found, self.momentum, count)
        return _normalize(x, scale, bias, mean, var, self.epsilon, self.dtype, by)


# Traced and lowered once for all layers of the same shapes: JAX takes as long for a batch norm as for a convolution.
# `by` is the lowering, which the trace depends on.
@partial(jax.jit, static_argnums=(1, 2))
def _statistics(x: jax.Array, size: int, by: Lowering) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each group of `size` images, (G, C) float32."""
    mean, var = moments(x.reshape(x.shape[0] // size, -1, x.shape[-1]).astype(jnp.float32))
    return mean, var


@partial(jax.jit, static_argnums=(2, 3))
def _follow(running: tuple, found: tuple, momentum: float, count: int | None) -> list[jax.Array]:
    """The running mean and variance, (C,), after those of a batch, (G, C); unbiased by `count` values, if given."""
    mean, var = found
    if count is not None:
        var = var * (count / max(count - 1, 1))
    return [momentum * old + (1 - momentum) * new.mean(0) for old, new in zip(running, (mean, var), strict=True)]


@partial(jax.jit, static_argnums=(5, 6, 7))
def _normalize(x, scale, bias, mean, var, epsilon: float, dtype: jnp.dtype, by: Lowering) -> jax.Array:
    """Algorithm 1 with statistics (G, C)."""
    gain = scale * lax.rsqrt(var + epsilon)
    shift = bias - mean * gain
    y = affine(x.astype(jnp.float32).reshape(len(gain), -1, x.shape[-1]), gain, shift)
    return y.reshape(x.shape).astype(dtype)


class LocalResponseNorm(nn.Module):
    """x / (k + a * sum over `size` neighbouring channels of x^2) ** beta, (..., C) -> (..., C).

    Krizhevsky 2012, sec. 3.3: k, n, alpha, beta = 2, 5, 1e-4, 0.75, with a = alpha as the
    formula is printed. Caffe and PyTorch divide: a = alpha / size (`divide_by_size`). The sum
    over channel c runs from c - size // 2 to c + (size - 1) // 2, cut at the edges.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    divide_by_size: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        before, after = self.size // 2, (self.size - 1) // 2
        squares = jnp.square(x.astype(jnp.float32))
        squares = jnp.pad(squares, [(0, 0)] * (x.ndim - 1) + [(before, after)])
        # Shifted slices, not reduce_window: measured four times faster on a CPU.
        total = sum(squares[..., i : i + channels] for i in range(self.size))
        alpha = self.alpha / self.size if self.divide_by_size else self.alpha
        base = self.k + alpha * total
        # x^(-3/4) without a logarithm: forward in half the time on a CPU, or less.
        factor = lax.rsqrt(base) * lax.rsqrt(lax.sqrt(base)) if self.beta == 0.75 else base**-self.beta
        return (x * factor).astype(x.dtype)
