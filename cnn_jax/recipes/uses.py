"""Options of tasks other than classification."""

from dataclasses import dataclass
from typing import Literal

from cnn_jax.recipes.checks import check, check_range

# The kind of label that each task learns from (data.dataset.Labels).
LABELS: dict[str, Literal["class", "captions", "mask"]] = {
    "classify": "class",
    "embed": "class",
    "segment": "mask",
    "caption": "captions",
}
MARGINS = {"triplet": 0.2, "contrastive": 1.0, "arcface": 0.5}  # of the papers; supcon has none


@dataclass(frozen=True)
class Embed:
    """How task=embed learns embeddings; cnn_jax/embedding has the losses."""

    loss: Literal["triplet", "contrastive", "supcon", "arcface"] = "triplet"
    """triplet: FaceNet's (Schroff 2015); contrastive: of pairs (Hadsell 2006); supcon: supervised contrastive learning
    (Khosla 2020); arcface: a direction for each class, with an angular margin (Deng 2018)."""
    dim: int = 128
    """Values of an embedding; 0: the network's own features, without a layer behind them."""
    batch_norm: bool = False
    """A batch norm behind that layer, as in facenet's and ArcFace's networks."""
    images_per_class: int = 4
    """Of each class in a batch, which has batch-size / images-per-class of them."""
    margin: float | None = None
    """triplet: of squared distances, 0.2 if not given; contrastive: of distances, 1; arcface: of angles, 0.5 rad."""
    mining: Literal["hard", "semihard", "all"] = "semihard"
    """triplet: each anchor's farthest positive and nearest negative; those whose negative is the farther one, but
    within the margin; or all."""
    temperature: float = 0.1
    """supcon: what cosines are divided by."""
    scale: float = 64.0
    """arcface: what cosines are multiplied by."""

    def __post_init__(self):
        check_range("embed.dim", self.dim, 0, 1_000_000)
        check_range("embed.images-per-class", self.images_per_class, 1 if self.loss == "arcface" else 2, 1_000_000)
        check(self.loss != "supcon" or self.margin is None, "embed.margin", self.margin, "left out with loss=supcon")
        if self.margin is not None:
            check_range("embed.margin", self.margin, 0, 3 if self.loss == "arcface" else 4)
        check_range("embed.temperature", self.temperature, 0, open_low=True)
        check_range("embed.scale", self.scale, 0, open_low=True)

    @property
    def used_margin(self) -> float:
        """The loss's own, if none is given."""
        return MARGINS[self.loss] if self.margin is None else self.margin

    def check_batch(self, size: int, parts: int) -> None:
        """Raises a UserError unless a batch of `size` images has whole classes and, for pairs, is computed at once."""
        each = self.images_per_class
        check(size % each == 0, "batch-size", size, f"a multiple of embed.images-per-class={each}")
        check(parts == 1 or self.loss == "arcface", "optimizer.accumulate", parts, f"1 with embed.loss={self.loss}")


@dataclass(frozen=True)
class Segment:
    """How task=segment finds the class of each pixel; cnn_jax/segmentation.py has the networks and the losses."""

    head: Literal["unet", "deeplab"] = "unet"
    """What stands on the backbone. unet: Ronneberger 2015; deeplab: v3 (Chen 2017), with a decoder v3+ (Chen 2018)."""
    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    """unet: channels of the steps from the smallest map up, of which a backbone that halves less often takes the last
    ones."""
    rates: tuple[int, ...] = (6, 12, 18)
    """deeplab: how far apart the taps of its 3x3 convolutions stand, in positions of the last map."""
    channels: int = 256
    """deeplab: of all its layers."""
    decoder: int | None = None
    """deeplab: pixels to a position of the finer map that outlines are drawn by; none if not given."""
    dice: float = 0.0
    """Weight of the Dice loss (Milletari 2016) beside the cross-entropy of pixels."""

    def __post_init__(self):
        for name, numbers in (("widths", self.widths), ("rates", self.rates)):
            right = "whole numbers from 1 to 65,536"
            check(bool(numbers) and min(numbers) > 0 and max(numbers) <= 65536, f"segment.{name}", numbers, right)
        check_range("segment.channels", self.channels, 1, 65536)
        if self.decoder is not None:
            check_range("segment.decoder", self.decoder, 1, 1024)
        check_range("segment.dice", self.dice, 0)


@dataclass(frozen=True)
class Caption:
    """task=caption: the decoder behind the network, and how sentences are found in a test."""

    attention: bool = True
    """The decoder looks at positions of a map (Xu 2015, 1502.03044); else it is given the image once, by the pooled
    features (Vinyals 2014, 1411.4555)."""
    look_at: str | None = None
    """attention: the map by its name, such as stage3, as `cnn-jax info` lists them; the last one if not given."""
    width: int = 512
    """Units of the LSTM, and of the attention's hidden layer (1411.4555, sec. 4.3.1)."""
    embedding: int = 512
    """Numbers that a word is (the same)."""
    dropout: float = 0.5
    """Share of the units dropped before the words' logits; --dropout is that of the network before."""
    coverage: float = 1.0
    """attention: lambda, the weight of looking at every position alike over a sentence (1502.03044, eq. 14)."""
    beam: int = 3
    """Sentences that are kept while the best is looked for; 1 takes the likeliest word each time."""
    length_power: float = 0.0
    """The power of its length that a sentence's log-likelihood is divided by when the best is chosen: 1 prefers longer
    ones, 0 is the papers' likelihood."""
    length: int | None = None
    """Words of a sentence at most, its end included: further ones of longer references are not trained on. As the
    data set's longest if not given."""

    def __post_init__(self):
        if self.look_at is not None:
            check(self.attention, "caption.look-at", self.look_at, "left out without caption.attention")
        check_range("caption.width", self.width, 1, 65_536)
        check_range("caption.embedding", self.embedding, 1, 65_536)
        check_range("caption.dropout", self.dropout, 0, 1, open_high=True)
        check_range("caption.coverage", self.coverage, 0)
        check_range("caption.beam", self.beam, 1, 1000)
        check_range("caption.length-power", self.length_power, 0, 10)
        if self.length is not None:
            check_range("caption.length", self.length, 1, 1000)
