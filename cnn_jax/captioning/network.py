"""Image captioning: Vinyals, Toshev, Bengio & Erhan, "Show and Tell" (1411.4555), and the soft attention of Xu et al.,
"Show, Attend and Tell" (1502.03044).

Departures: any backbone, trained from the first step unless it is frozen, where both papers keep a pre-trained one for
long. Dropout is that of the authors' code for 1502.03044, before the words' logits; 1411.4555 does not say where it is.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.data.dataset import START
from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.layers import taken, tap
from cnn_jax.layers.options import Checked, Count, Rate

Carry = tuple[jax.Array, jax.Array]  # the LSTM's cell and output, (B, K, width) each
Sight = tuple[jax.Array, ...]  # with attention: the map (B, h, w, D), its share of the hidden layer


class Begun(NamedTuple):
    """What a decoder knows of images before the first word: its state, with K = 1, and what it may look at."""

    carry: Carry
    sight: Sight


class Decoder(nn.Module):
    """The LSTM behind the image; K sentences of each image stand side by side.

    Show and Tell (1411.4555, eq. 10-12): the image is the LSTM's first input, before <start>. Attention (1502.03044,
    sec. 3.1.2 and 4.2): each word looks at a weighted mean of the map's positions.
    """

    vocabulary: int
    width: int
    embedding: int
    attention: bool
    dropout: float
    dtype: jnp.dtype

    def setup(self):
        dense = partial(nn.Dense, dtype=self.dtype)
        self.words = nn.Embed(self.vocabulary, self.embedding, dtype=self.dtype)
        self.cell = nn.OptimizedLSTMCell(self.width, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)
        self.out = nn.Dense(self.vocabulary, dtype=self.dtype)
        if self.attention:
            self.first_cell, self.first_hidden = dense(self.width), dense(self.width)
            self.position, self.asked, self.match = dense(self.width), dense(self.width, use_bias=False), dense(1)
            self.gate = dense(1)
            self.hidden_out, self.context_out = dense(self.embedding), dense(self.embedding, use_bias=False)
        else:
            self.image = dense(self.embedding)

    def begin(self, features: jax.Array) -> Begun:
        """Before the first word, from what Captioner.encode gives."""
        if not self.attention:
            image = self.image(features)[:, None]
            still = jnp.zeros((*image.shape[:2], self.width), image.dtype)
            return Begun(self.cell((still, still), image)[0], ())
        mean = features.mean((1, 2))[:, None]
        carry = nn.tanh(self.first_cell(mean)), nn.tanh(self.first_hidden(mean))
        return Begun(carry, (features, self.position(features)))

    def step(self, carry: Carry, word: jax.Array, sight: Sight) -> tuple[Carry, tuple]:
        """The LSTM after a word (B, K, embedding): its state, and (output, context (B, K, D), weights (B, K, L)).

        Without attention there are neither context nor weights: None.
        """
        if not self.attention:
            carry, hidden = self.cell(carry, word)
            return carry, (hidden, None, None)
        positions, keys = (x.reshape(len(x), -1, x.shape[-1]) for x in sight)
        before = carry[1]
        match = self.match(nn.tanh(keys[:, None] + self.asked(before)[:, :, None]))[..., 0]
        weights = nn.softmax(match.astype(jnp.float32))
        context = nn.sigmoid(self.gate(before)) * jnp.einsum("bkl,bld->bkd", weights.astype(self.dtype), positions)
        carry, hidden = self.cell(carry, jnp.concatenate([word, context], -1))
        return carry, (hidden, context, weights)

    def logits(self, word: jax.Array, hidden: jax.Array, context: jax.Array | None, *, train: bool) -> jax.Array:
        """Of the next word, (..., V) float32; with attention by the deep output layer (1502.03044, eq. 7)."""
        if context is not None:
            hidden = word + self.hidden_out(hidden) + self.context_out(context)
        return self.out(self.drop(hidden, deterministic=not train)).astype(jnp.float32)

    def say(self, carry: Carry, last: jax.Array, sight: Sight, *, train: bool) -> tuple[Carry, tuple]:
        """After the words `last` (B, K): the LSTM's state, and (logits (B, K, V), weights (B, K, L) or None)."""
        word = self.words(last)
        carry, (hidden, context, weights) = self.step(carry, word, sight)
        return carry, (self.logits(word, hidden, context, train=train), weights)

    def __call__(self, begun: Begun, tokens: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array | None]:
        """Teacher forcing: logits (B, R, T, V) and weights (B, R, T, L), each word of `tokens` from those before it."""
        batch, sentences, _ = tokens.shape
        before = jnp.pad(tokens[..., :-1], ((0, 0), (0, 0), (1, 0)), constant_values=START)
        words = self.words(before)
        carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, sentences, self.width)), begun.carry)

        def step(decoder: Decoder, carry: Carry, word: jax.Array) -> tuple[Carry, tuple]:
            return decoder.step(carry, word, begun.sight)

        along = nn.scan(step, variable_broadcast="params", split_rngs={"params": False}, in_axes=2, out_axes=2)
        _, (hidden, context, weights) = along(self, carry, words)
        return self.logits(words, hidden, context, train=train), weights


class Captioner(Checked):
    """(B, H, W, C) images and (B, R, T) sentences -> (B, R, T, vocabulary) float32 logits of their words.

    `backbone` is a network with `num_classes=0`; its layers keep their names. With `attention` the decoder looks at the
    map that it taps as `look_at`, or at its last one; else it is given what the backbone makes of the whole image. Word
    t is guessed from the words before it, which `tokens` holds as whole numbers: END behind the last, then PAD.
    `dropout` is the rate before the words' logits; it needs `rngs={"dropout": key}` in training. Tap: attention, the
    weights (B, R, T, L) over the map's L positions.

    Raises:
      UserError: a backbone that gives no such map, or with `attention=False` no vector.
    """

    backbone: nn.Module
    vocabulary: Count
    width: Count = 512
    embedding: Count = 512
    attention: bool = True
    look_at: str | None = None
    dropout: Rate = 0.5
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        nn.share_scope(self, self.backbone)
        self.decoder = Decoder(
            self.vocabulary, self.width, self.embedding, self.attention, self.dropout, self.dtype, name="decoder"
        )

    def encode(self, images: jax.Array, *, train: bool) -> jax.Array:
        """What the decoder sees of images: a map (B, h, w, D), or without attention a vector (B, D)."""
        network = type(self.backbone).__name__
        with taken() as taps:
            pooled = self.backbone(images, train=train)
        maps = {name: x for name, x in taps.items() if x.ndim == 4}
        if not self.attention:
            if pooled.ndim != 2:
                raise UserError(f"{network} gives a map where a vector is needed; leave out global_pool")
            return pooled.astype(self.dtype)
        if not maps:
            raise UserError(f"{network} taps no map to attend to")
        if self.look_at is not None and self.look_at not in maps:
            raise UserError(did_you_mean(f"map of {network}", self.look_at, maps))
        return maps[self.look_at or [*maps][-1]].astype(self.dtype)

    def begin(self, images: jax.Array, *, train: bool) -> Begun:
        """What the decoder knows of images (B, H, W, C) before the first word."""
        return self.decoder.begin(self.encode(images, train=train))

    def read(self, begun: Begun, tokens: jax.Array, *, train: bool) -> jax.Array:
        """Teacher forcing: logits (B, R, T, vocabulary) float32 of `tokens` (B, R, T), each from those before it."""
        batch = len(begun.carry[0])
        if tokens.ndim != 3 or len(tokens) != batch:
            raise UserError(f"tokens must be ({batch}, sentences, words) for {batch} images, not {tokens.shape}")
        logits, weights = self.decoder(begun, tokens.astype(jnp.int32), train=train)
        if weights is not None:
            tap(self, "attention", weights)
        return logits

    def say(self, carry: Carry, last: jax.Array, sight: Sight, *, train: bool) -> tuple[Carry, tuple]:
        """The next words, behind `last` (B, K): the LSTM's state, (logits (B, K, V), weights (B, K, L) or None)."""
        return self.decoder.say(carry, last, sight, train=train)

    def __call__(self, images: jax.Array, tokens: jax.Array | None = None, *, train: bool) -> jax.Array:
        if tokens is None:  # as a network is made
            tokens = jnp.zeros((len(images), 1, 1), jnp.int32)
        return self.read(self.begin(images, train=train), tokens, train=train)
