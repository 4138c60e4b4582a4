"""What every task is: the network, its loss, its figures and its pictures."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnn_jax.data import augment
from cnn_jax.data.dataset import Dataset
from cnn_jax.models import model_info
from cnn_jax.models.card import ModelInfo
from cnn_jax.recipes import Recipe

Apply = Callable[..., Any]
Records = dict[str, np.ndarray]


class Figure(NamedTuple):
    """A share, told in percent, larger is better: `key` in records and summaries, `title` in tables."""

    key: str
    title: str


@dataclass(frozen=True)
class Task(ABC):
    """What a recipe's network learns from images of `channels` channels with labels of `classes` classes.

    `cropped` says that training images come randomly cropped from the host. `inputs`, `loss` and `record` are pure, for
    jit. To add one: a file like classify.py, its row in TASKS, its options in recipes/uses.py.

    Attributes:
      trained: what a training step tells beside its loss.
      tested: what a test tells beside it; by the first, checkpoints are the best.
    """

    config: Recipe
    classes: int
    channels: int
    cropped: bool = False

    trained: ClassVar[Figure]
    tested: ClassVar[tuple[Figure, ...]]

    @cached_property
    def info(self) -> ModelInfo:
        """The network's card."""
        return model_info(self.config.model)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        return image_size(self.config)

    @cached_property
    def preprocess(self) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
        """Pixels -> what the network sees; augmented if a key is given."""
        mean, std = self.info.normalization(self.channels)
        return augment.make_preprocess(self.size, mean, std, asdict(self.config.augment), cropped=self.cropped)

    @abstractmethod
    def model(self, **options: Any) -> nn.Module:
        """The network, as `init(key, images, train=False)` takes it; `options` are create_model's, of the backbone;
        `frozen_head` has the paths of batch norms on it that keep their statistics.

        Raises:
          UserError: an option that it does not have.
        """

    @abstractmethod
    def inputs(self, batch: dict[str, jax.Array], key: jax.Array) -> Any:
        """What the loss is of: `image` (B, H, W, C) uint8, preprocessed and augmented, and targets of `label`."""

    @abstractmethod
    def loss(self, apply: Apply, inputs: Any) -> tuple[jax.Array, jax.Array, dict]:
        """The batch's mean loss, its figure `trained`, and the collections that moved.

        `apply(images, ...) -> (outputs, moved)` is the network's in training.
        """

    @abstractmethod
    def record(self, apply: Apply, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """What a test notes of each image, (B, ...) arrays; `apply(images, ...) -> outputs` in evaluation."""

    @abstractmethod
    def summarize(self, records: Records, dataset: Dataset) -> dict[str, Any]:
        """`test_loss`, `test_count` and `test_KEY` of every figure `tested`, from the records of a whole split.

        `dataset` is that split, for what its classes are called.
        """

    def told(self, summary: dict[str, Any]) -> str:
        """What a test found, for a person, from its summary."""
        first, *others = (f"{figure.title} {summary[f'test_{figure.key}']:.2%}" for figure in self.tested)
        return f"test {first} ({', '.join(others)}) of {summary['test_count']:,} images,"

    @abstractmethod
    def draw(self, out: Path, title: str, records: Records, dataset: Dataset) -> list[str]:
        """Draws what a test found, by its records, as PNG files in `out`; their names."""


def image_size(config: Recipe) -> tuple[int, int]:
    """Height and width of what a recipe's network sees."""
    height, width, _ = model_info(config.model).input_size
    return (height, width) if config.image_size is None else (config.image_size, config.image_size)
