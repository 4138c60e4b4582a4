"""What captioning minimises, per image."""

import jax
import jax.numpy as jnp
import optax

from cnn_jax.data.dataset import PAD


def caption_loss(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Minus the log-likelihood of a word in nats, the mean over all words of an image's sentences (1411.4555, eq. 13).

    `logits` (B, R, T, V) of `tokens` (B, R, T), of which PAD counts nothing -> (B,) float32. The papers sum over
    words; the mean leaves the learning rate alone where sentences are longer.
    """
    words = tokens != PAD
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens.astype(jnp.int32))
    return jnp.sum(losses * words, (1, 2)) / _count(words)


def attention_penalty(weights: jax.Array, tokens: jax.Array) -> jax.Array:
    """How unevenly a sentence looks at the image: sum_i (1 - sum_t alpha_ti)^2 (1502.03044, eq. 14), a word.

    `weights` (B, R, T, L) of `tokens` (B, R, T) -> (B,) float32, divided by the words as caption_loss is: their sum
    is then the paper's objective with lambda 1, but for that division.
    """
    words = tokens != PAD
    looked = jnp.sum(weights * words[..., None], 2)
    return jnp.sum((1 - looked) ** 2 * words.any(-1)[..., None], (1, 2)) / _count(words)


def _count(words: jax.Array) -> jax.Array:
    return jnp.maximum(words.sum((1, 2)), 1)
