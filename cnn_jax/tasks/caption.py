"""Sentences about each image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import captioning
from cnn_jax.data.dataset import PAD, Dataset
from cnn_jax.data.decode import center_crop
from cnn_jax.layers import taken
from cnn_jax.models import create_model
from cnn_jax.tasks.task import Apply, Figure, Records, Task


@dataclass(frozen=True)
class Caption(Task):
    """The recipe's network with a decoder behind it, as `config.caption` says; labels are references, (R, T) each.

    The loss is caption_loss plus `coverage` times the attention's penalty. By the share of words that are guessed
    right behind the true ones, checkpoints are the best: it is there for every data set, and tells more than whole
    sentences where few are ever said twice.
    """

    trained: ClassVar[Figure] = Figure("words", "words")
    tested: ClassVar[tuple[Figure, ...]] = (Figure("words", "words"), Figure("exact", "exact"))

    def model(self, **options: Any) -> nn.Module:
        told = self.config.caption
        return captioning.Captioner(
            create_model(self.config.model, num_classes=0, **options),
            self.classes,
            width=told.width,
            embedding=told.embedding,
            attention=told.attention,
            look_at=told.look_at,
            dropout=told.dropout,
            dtype=options.get("dtype", jnp.float32),
        )

    def inputs(self, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.preprocess(batch["image"], key), batch["label"][..., : self.config.caption.length]

    def loss(self, apply: Apply, inputs: Any) -> tuple[jax.Array, jax.Array, dict]:
        images, tokens = inputs
        with taken() as taps:
            logits, moved = apply(images, tokens)
        value = captioning.caption_loss(logits, tokens).mean()
        if self.config.caption.attention:
            value += self.config.caption.coverage * captioning.attention_penalty(taps["attention"], tokens).mean()
        words = tokens != PAD
        return value, jnp.sum((logits.argmax(-1) == tokens) & words) / jnp.maximum(words.sum(), 1), moved

    def record(self, apply: Apply, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """`loss`, `words` (the share guessed right), `guess` (T,), `exact`, `label` and `attention` (T, h, w)."""
        told, references = self.config.caption, batch["label"]
        tokens = references[..., : told.length]
        begun = apply(self.preprocess(batch["image"], None), method="begin")
        logits = apply(begun, tokens, method="read")
        found = captioning.search(apply, begun, length=tokens.shape[-1], beam=told.beam, length_power=told.length_power)
        words = tokens != PAD
        right = jnp.sum((logits.argmax(-1) == tokens) & words, (1, 2))
        looked = {} if found.attention is None else {"attention": found.attention.astype(jnp.float16)}
        return looked | {
            "loss": captioning.caption_loss(logits, tokens),
            "words": right / jnp.maximum(words.sum((1, 2)), 1),
            "guess": found.tokens,
            "exact": captioning.exact_match(found.tokens, references),
            "label": references,
        }

    def summarize(self, records: Records, dataset: Dataset) -> dict[str, Any]:
        """With BLEU and CIDEr where pycocoevalcap is installed."""
        found = {f"test_{key}": float(records[key].mean(dtype=np.float64)) for key in ("loss", "words", "exact")}
        scored: dict[str, float] = {}
        if captioning.can_score():
            guesses = [captioning.sentence(guess, dataset.classes) for guess in records["guess"]]
            scored = captioning.caption_scores(guesses, [_references(label, dataset) for label in records["label"]])
        return found | {f"test_{key}": value for key, value in scored.items()} | {"test_count": len(records["exact"])}

    def told(self, summary: dict[str, Any]) -> str:
        search = "greedy" if self.config.caption.beam == 1 else f"beam {self.config.caption.beam}"
        scores = "no BLEU (pip install 'cnn-jax[caption]')"
        if "test_bleu4" in summary:
            scores = f"BLEU-4 {summary['test_bleu4']:.3f}, CIDEr {summary['test_cider']:.2f}"
        return f"test exact {summary['test_exact']:.2%} of {summary['test_count']:,} images, {scores}, {search},"

    def draw(self, out: Path, title: str, records: Records, dataset: Dataset) -> list[str]:
        """Images with their sentences, and where each word looked."""
        from cnn_jax.visualize import draw_attention, draw_captions

        first = slice(0, 12)
        images = [self._seen(dataset, int(index)) for index in records["index"][first]]
        guesses = [captioning.sentence(guess, dataset.classes) for guess in records["guess"][first]]
        references = [_references(label, dataset)[0] for label in records["label"][first]]
        draw_captions(images, guesses, references, records["exact"][first], out / "captions.png", title)
        if "attention" not in records:
            return ["captions.png"]
        words = [[dataset.classes[token] for token in guess if token != PAD] for guess in records["guess"][:4]]
        draw_attention(images[:4], words, records["attention"][:4].astype(np.float32), out / "attention.png", title)
        return ["captions.png", "attention.png"]

    def _seen(self, dataset: Dataset, index: int) -> np.ndarray:
        """The part of an image that the network was shown in a test, so that its attention lies where it looked."""
        image = dataset.pixels(index)
        if dataset.fixed_size:
            return image
        return center_crop(image, self.channels, self.size[0], self.info.crop, self.info.interpolation)


def _references(label: np.ndarray, dataset: Dataset) -> list[str]:
    return [captioning.sentence(row, dataset.classes, reference=True) for row in label if row[0] != PAD]
