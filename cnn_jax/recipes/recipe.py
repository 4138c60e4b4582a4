"""What a recipe says, and what it may not say."""

import math
from dataclasses import dataclass, field
from typing import Literal

from cnn_jax.errors import UserError


def check(condition: bool, name: str, value: object, right: str) -> None:
    """Raises a UserError `NAME must be RIGHT, not VALUE` unless `condition` holds."""
    if not condition:
        raise UserError(f"{name} must be {right}, not {value}")


def check_range(name: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """Raises a UserError unless `value` is finite and in [low, high] (or (low, high])."""
    inside = math.isfinite(value) and (low < value if open_low else low <= value) and value <= high
    bound = f"above {low:g}" if open_low else f"at least {low:g}"
    check(inside, name, value, bound + (f" and at most {high:,}" if high < math.inf else ""))


@dataclass(frozen=True)
class Optimizer:
    """SGD with momentum, L2 added to the gradient before the momentum (PyTorch's and Caffe's order)."""

    lr: float = 0.1
    """Learning rate at its peak."""
    momentum: float = 0.9
    """Share of the last step that is kept."""
    nesterov: bool = False
    """Look ahead along the momentum."""
    weight_decay: float = 0.0
    """L2 on kernels only: no biases, no normalisation."""

    def __post_init__(self):
        check_range("optimizer.lr", self.lr, 0, open_low=True)
        check_range("optimizer.momentum", self.momentum, 0, 1)
        check_range("optimizer.weight-decay", self.weight_decay, 0)


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves, in epochs."""

    kind: Literal["constant", "step", "cosine", "plateau"] = "cosine"
    """step: times `factor` at each boundary; cosine: to 0; plateau: times `factor` when the epoch's
    mean training loss has not improved for `patience` epochs."""
    warmup: float = 0.0
    """Epochs of linear rise from 0 to the peak; a shorter run never reaches it."""
    boundaries: tuple[float, ...] = ()
    """step: the epochs at which the rate falls."""
    factor: float = 0.1
    """step and plateau: what the rate is multiplied by."""
    patience: int = 5
    """plateau: epochs without improvement."""

    def __post_init__(self):
        check_range("schedule.warmup", self.warmup, 0, 1_000_000)
        check_range("schedule.factor", self.factor, 0, 1, open_low=True)
        check_range("schedule.patience", self.patience, 1)
        for boundary in self.boundaries:
            check_range("schedule.boundaries", boundary, 0, open_low=True)
        rising = all(a < b for a, b in zip((0, *self.boundaries), self.boundaries, strict=False))
        check(rising, "schedule.boundaries", self.boundaries, "rising epochs above 0")
        if self.kind == "step":
            check(bool(self.boundaries), "schedule.boundaries", self.boundaries, "given with schedule.kind=step")


@dataclass(frozen=True)
class Augment:
    """Random planar affine maps of the training images (LeCun 1998, sec. III.A)."""

    rotate: float = 0.0
    """Degrees either way."""
    translate: float = 0.0
    """Pixels either way, per axis."""
    scale: float = 0.0
    """Factor of 1 +- this, per axis."""
    shear: float = 0.0
    """Horizontal pixels per row, either way."""

    def __post_init__(self):
        check_range("augment.rotate", self.rotate, 0, 180)
        check_range("augment.translate", self.translate, 0)
        check_range("augment.scale", self.scale, 0, 0.9)
        check_range("augment.shear", self.shear, 0)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's result."""

    model: str
    """A name that cnn_jax.list_models() gives."""
    stem: Literal["imagenet", "cifar"] | None = None
    """cifar: the network's form for images of 28 to 64 pixels; its own form if not given."""
    image_size: int | None = None
    """Pixels a side that images are brought to; the network's own size if not given."""
    dataset: str = "mnist_5k"
    """mnist_5k, or any TFDS image classification set of one image size."""
    test_split: str = "test"
    """The split that is tested on; "validation" for sets such as imagenette."""
    data_dir: str | None = None
    """Where prepared TFDS sets lie; TFDS's own place if not given."""
    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 64
    """Images a step, over all devices."""
    seed: int = 0
    """Of the weights, the order of the images and the augmentation."""
    loss: Literal["cross_entropy", "map"] = "cross_entropy"
    """map: LeNet-5's criterion with a rubbish class (LeCun 1998, eq. 9)."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type; parameters and statistics stay float32."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self):
        if self.data_dir is not None:
            check(self.data_dir.isprintable() and bool(self.data_dir.strip()), "data-dir", self.data_dir, "a folder")
        check_range("epochs", self.epochs, 1, 1_000_000)
        check_range("batch-size", self.batch_size, 1, 1_000_000)
        if self.image_size is not None:
            check_range("image-size", self.image_size, 1, 4096)
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_range("label-smoothing", self.label_smoothing, 0, 0.99)
