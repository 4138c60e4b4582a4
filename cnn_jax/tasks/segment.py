"""One class for each pixel."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import segmentation
from cnn_jax.data import augment
from cnn_jax.data.dataset import IGNORED, Dataset
from cnn_jax.errors import UserError
from cnn_jax.models import create_model
from cnn_jax.tasks.task import Apply, Figure, Records, Task

SHOWN = 128  # pixels a side at most of the guesses that are kept to be drawn


@dataclass(frozen=True)
class Segment(Task):
    """Cross-entropy of the pixels, and the Dice loss as far as `config.segment` says; masks are moved with images.

    A step tells the share of its pixels that are right.
    """

    trained: ClassVar[Figure] = Figure("accuracy", "pixels")
    tested: ClassVar[tuple[Figure, ...]] = (
        Figure("mean_iou", "mean IoU"),
        Figure("mean_dice", "mean Dice"),
        Figure("accuracy", "pixels"),
    )

    def model(self, **options: Any) -> nn.Module:
        head, dropout, frozen = self.config.segment, options.pop("dropout", None), options.pop("frozen_head", ())
        backbone = create_model(self.config.model, num_classes=0, **options)
        norm = None
        if frozen:
            norm = segmentation.norm_of(backbone)
            norm = partial(norm, frozen=(*norm().frozen, *frozen))
        if head.head == "unet":
            if dropout is not None:
                raise UserError("--dropout: U-Net has none; --segment.head deeplab has")
            return segmentation.UNet(backbone, self.classes, head.widths, norm)
        own = {} if dropout is None else {"dropout": dropout}
        of_head = head.rates, head.channels
        return segmentation.DeepLabV3(backbone, self.classes, *of_head, decoder=head.decoder, norm=norm, **own)

    @cached_property
    def mask_preprocess(self) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
        """Masks -> as `preprocess` moves their images, by the same key."""
        return augment.make_mask_preprocess(self.size, asdict(self.config.augment))

    def criterion(self, logits: jax.Array, masks: jax.Array) -> jax.Array:
        """What training minimises, per image."""
        loss = segmentation.pixel_cross_entropy(logits, masks)
        if weight := self.config.segment.dice:
            loss += weight * segmentation.dice_loss(logits, masks)
        return loss

    def inputs(self, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.preprocess(batch["image"], key), self.mask_preprocess(batch["label"], key)

    def loss(self, apply: Apply, inputs: Any) -> tuple[jax.Array, jax.Array, dict]:
        images, masks = inputs
        logits, moved = apply(images)
        counted = masks != IGNORED
        right = ((logits.argmax(-1) == masks) & counted).sum() / jnp.maximum(counted.sum(), 1)
        return self.criterion(logits, masks).mean(), right, moved

    def record(self, apply: Apply, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """`loss` (B,), the `confusion` of pixels (B, C, C), and `guess`, every so many-th pixel, (B, h, w) uint8.

        The loss is the cross-entropy.
        """
        masks = self.mask_preprocess(batch["label"], None)
        logits = apply(self.preprocess(batch["image"], None))
        guess, step = logits.argmax(-1), -(-max(self.size) // SHOWN)
        return {
            "loss": segmentation.pixel_cross_entropy(logits, masks),
            "confusion": segmentation.pixel_confusion(guess, masks, self.classes),
            "guess": guess[:, ::step, ::step].astype(jnp.uint8),
        }

    def summarize(self, records: Records, dataset: Dataset) -> dict[str, Any]:
        """With `test_iou`, by the name of each class that occurs."""
        found = segmentation.scores(records["confusion"].sum(0, dtype=np.int64))
        named = zip(dataset.classes, found["iou"].tolist(), strict=True)
        return {
            "test_loss": float(records["loss"].mean(dtype=np.float64)),
            "test_count": len(records["loss"]),
            **{f"test_{figure.key}": float(found[figure.key]) for figure in self.tested},
            "test_iou": {name: share for name, share in named if not np.isnan(share)},
        }

    def draw(self, out: Path, title: str, records: Records, dataset: Dataset) -> list[str]:
        """Images with their masks and what was guessed, and which class was taken for which."""
        from cnn_jax.visualize import draw_confusion, draw_masks

        counts = records["confusion"].sum(0, dtype=np.int64)
        draw_masks(records, dataset, out / "masks.png", title)
        draw_confusion(counts, dataset.classes, out / "confusion.png", f"{title}, pixels")
        return ["masks.png", "confusion.png"]
