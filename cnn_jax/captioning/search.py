"""The sentence that a network finds likeliest: greedy and beam search, compiled, with fixed shapes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.captioning.network import Begun, Captioner
from cnn_jax.data.dataset import END, PAD, START
from cnn_jax.errors import UserError


class Captions(NamedTuple):
    """A sentence for each image.

    `tokens` (B, T) int32, PAD behind END, which is missing where T words were too few. `log_likelihood` (B,) float32 in
    nats, END included. `attention` (B, T, h, w) float32: where each word looked, 1 in sum; of PAD 0; None without.
    """

    tokens: jax.Array
    log_likelihood: jax.Array
    attention: jax.Array | None


def greedy(model: Captioner, variables: Mapping, images: jax.Array, *, length: int) -> Captions:
    """The likeliest word after the other: beam_search with a beam of one."""
    return beam_search(model, variables, images, length=length, beam=1)


def beam_search(
    model: Captioner,
    variables: Mapping,
    images: jax.Array,
    *,
    length: int,
    beam: int = 3,
    length_power: float = 0.0,
) -> Captions:
    """The best of the sentences that a beam finds (1411.4555, sec. 3.1), at most `length` words with their end.

    After each word the `beam` likeliest sentences so far are kept; one that has ended keeps its likelihood and its
    place until likelier ones take it. Of those left in the end, the one with the highest log-likelihood / words **
    `length_power` is given: 0 is the likeliest, as in both papers, 1 the likeliest by the word, which prefers longer
    ones. PAD and START are never said. Pure: jit it with all but `variables` and `images` static.

    Raises:
      UserError: a length or a beam below 1.
    """
    apply = partial(model.apply, variables, train=False)
    begun: Any = apply(images, method="begin")
    return search(apply, begun, length=length, beam=beam, length_power=length_power)


def search(apply: Callable, begun: Begun, *, length: int, beam: int, length_power: float) -> Captions:
    """As beam_search, behind what `apply(images, method="begin")` gave; `apply` is a Captioner's, in evaluation."""
    for name, value in (("length", length), ("beam", beam)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    carry, sight = begun
    batch = len(carry[0])
    say = partial(apply, method="say")
    _, (logits, weights) = jax.eval_shape(say, carry, jnp.zeros((batch, 1), jnp.int32), sight)
    vocabulary = logits.shape[-1]

    def kept(x: jax.Array, origin: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, origin.reshape(*origin.shape, *[1] * (x.ndim - 2)), 1)

    def step(state: tuple, place: jax.Array) -> tuple[tuple, None]:
        carry, said, looked, likelihood = state
        last = jnp.where(place == 0, START, said[:, :, place - 1])
        carry, (logits, weights) = say(carry, last, sight)
        ended = (last == END) | (last == PAD)
        word = jnp.arange(vocabulary)
        ongoing = jnp.where((word == PAD) | (word == START), -jnp.inf, jax.nn.log_softmax(logits))
        scores = jnp.where(ended[..., None], jnp.where(word == PAD, 0, -jnp.inf), ongoing)
        total = (likelihood[..., None] + scores).reshape(batch, -1)
        likelihood, found = jax.lax.top_k(total, beam)
        origin, token = found // vocabulary, found % vocabulary
        said = kept(said, origin).at[:, :, place].set(token)
        if weights is not None:
            weights = kept(jnp.where(ended[..., None], 0, weights), origin)
            looked = kept(looked, origin).at[:, :, place].set(weights)
        carry = jax.tree.map(lambda x: kept(x, origin), carry)
        return (carry, said, looked, likelihood), None

    shape = (batch, beam)
    carry = jax.tree.map(lambda x: jnp.repeat(x, beam, 1), carry)
    said = jnp.full((*shape, length), PAD, jnp.int32)
    looked = None if weights is None else jnp.zeros((*shape, length, weights.shape[-1]), jnp.float32)
    likelihood = jnp.broadcast_to(jnp.where(jnp.arange(beam) == 0, 0.0, -jnp.inf), shape)  # all begin alike
    (_, said, looked, likelihood), _ = jax.lax.scan(step, (carry, said, looked, likelihood), jnp.arange(length))
    words = (said != PAD).sum(-1)
    best = jnp.argmax(likelihood / words**length_power, -1)[:, None]
    attention = None if looked is None else kept(looked, best)[:, 0].reshape(batch, length, *sight[0].shape[1:3])
    return Captions(kept(said, best)[:, 0], kept(likelihood, best)[:, 0], attention)
