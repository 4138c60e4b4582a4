"""How good sentences are: exact match, BLEU and CIDEr."""

import importlib.util
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data.dataset import END, PAD, UNKNOWN
from cnn_jax.errors import UserError

OTHER = "<other>"  # a word of a reference that the vocabulary lacks: <unk> does not say it


def exact_match(guesses: jax.Array, references: jax.Array) -> jax.Array:
    """Whether each of `guesses` (B, T) is one of its `references` (B, R, T'), word by word: (B,) bool.

    A guess that has no END or that says UNKNOWN matches nothing.
    """
    long = max(guesses.shape[-1], references.shape[-1])
    guesses, references = (
        jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, long - x.shape[-1])]) if x.shape[-1] < long else x
        for x in (guesses, references)
    )
    same = (guesses[:, None] == references).all(-1).any(-1)
    return same & (guesses == END).any(-1) & (guesses != UNKNOWN).all(-1)


def sentence(tokens: np.ndarray, vocabulary: Sequence[str], *, reference: bool = False) -> str:
    """The words of (T,) numbers up to their END, with blanks between; of a `reference` UNKNOWN is OTHER."""
    words = []
    for token in tokens.tolist():
        if token in (END, PAD):
            break
        words.append(OTHER if reference and token == UNKNOWN else vocabulary[token])
    return " ".join(words)


def can_score() -> bool:
    """Whether what caption_scores needs is installed."""
    return importlib.util.find_spec("pycocoevalcap") is not None


def caption_scores(guesses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 (0 to 1) and CIDEr (0 to 10) of a guess for each image, as the COCO server computes them.

    Sentences are words with blanks between, in lower case and without punctuation: nothing is tokenised here. An image
    has one reference at least, and they may differ in number. CIDEr weighs n-grams by how many of these images have
    them, so that it is 0 for a single one. Returns {"bleu1": ..., "bleu4": ..., "cider": ...}.

    By pycocoevalcap (the extra `caption`), which is the server's own code: other libraries' BLEU takes another
    reference length or smooths, and a figure would not be that of the papers.

    Raises:
      UserError: pycocoevalcap is not installed; no images, an image without a reference, or other numbers of them.
    """
    if not can_score():
        raise UserError("BLEU and CIDEr need pycocoevalcap: pip install 'cnn-jax[caption]'")
    if not guesses or len(guesses) != len(references) or not all(references):
        raise UserError(
            f"scores need a guess and references for each image, not {len(guesses)} guesses and references for "
            f"{sum(map(bool, references))} images"
        )
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    bleu, cider = BleuScorer(n=4), CiderScorer(n=4, sigma=6.0)
    for guess, several in zip(guesses, references, strict=True):
        bleu += guess, [*several]
        cider += guess, [*several]
    found, _ = bleu.compute_score(option="closest", verbose=0)
    return {f"bleu{n}": float(value) for n, value in enumerate(found, start=1)} | {
        "cider": float(cider.compute_score()[0])
    }
