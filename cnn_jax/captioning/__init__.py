"""Sentences about images: a network with an LSTM behind it, with and without attention, its search and its scores.

    model = Captioner(create_model("resnet18", num_classes=0), vocabulary=len(words))
    variables = model.init(key, images, train=False)
    logits = model.apply(variables, images, tokens, train=True, ...)  # teacher forcing, (B, R, T, V)
    found = beam_search(model, variables, images, length=20)  # .tokens (B, T), .attention (B, T, h, w)

A sentence is a row of int32 numbers: END behind its last word, PAD behind that.
"""

from cnn_jax.captioning.loss import attention_penalty, caption_loss
from cnn_jax.captioning.network import Captioner
from cnn_jax.captioning.scores import can_score, caption_scores, exact_match, sentence
from cnn_jax.captioning.search import Captions, beam_search, greedy, search
from cnn_jax.data.dataset import END, PAD, START, UNKNOWN

__all__ = [
    "END",
    "PAD",
    "START",
    "UNKNOWN",
    "Captioner",
    "Captions",
    "attention_penalty",
    "beam_search",
    "can_score",
    "caption_loss",
    "caption_scores",
    "exact_match",
    "greedy",
    "search",
    "sentence",
]
