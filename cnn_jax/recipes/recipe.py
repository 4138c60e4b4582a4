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
    """What is done to training images at random; cnn_jax/data/augment has each with its paper."""

    rotate: float = 0.0
    """Affine map: degrees either way (LeCun 1998, sec. III.A, as the next three)."""
    translate: float = 0.0
    """Affine map: pixels either way, per axis."""
    scale: float = 0.0
    """Affine map: factor of 1 +- this, per axis."""
    shear: float = 0.0
    """Affine map: horizontal pixels per row, either way."""
    elastic: float = 0.0
    """Strength of the elastic distortion; 34 for digits (Simard 2003, sec. 2)."""
    elastic_sigma: float = 4.0
    """Its smoothness, in pixels."""
    crop: Literal["random_resized", "scale_jitter"] | None = None
    """random_resized: a box of any place, area and ratio (Szegedy 2014, sec. 6); scale_jitter: resized
    to any shorter side, then cropped (Simonyan 2015, sec. 3.1)."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """random_resized: the box's share of the area, from and to."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """random_resized: its width divided by its height, from and to."""
    jitter: tuple[float, float] = (256, 480)
    """scale_jitter: pixels of the shorter side, from and to; VGG has 256 and 512."""
    pad: int = 0
    """Black pixels a side, before a random crop to the old size; 4 on CIFAR (He 2015, sec. 4.2)."""
    flip: bool = False
    """Mirror half of the images left to right."""
    policy: Literal["randaugment", "autoaugment"] | None = None
    """A few operations of Pillow's (Cubuk 2019; Cubuk 2018, its ImageNet policy)."""
    policy_count: int = 2
    """randaugment: operations an image."""
    policy_magnitude: float = 9.0
    """randaugment: their strength, 0 to 10 and up to 30."""
    color: Literal["pca", "inception"] | None = None
    """pca: AlexNet's shift along ImageNet's principal colours; inception: brightness, saturation, hue
    and contrast."""
    erase: float = 0.0
    """Share of the images that a box of noise is put into (Zhong 2017)."""
    mixup: float = 0.0
    """alpha of the Beta distribution that blends two images and labels (Zhang 2017)."""
    cutmix: float = 0.0
    """alpha of the one that puts a box of one image into another (Yun 2019); with mixup, either in turn."""

    def __post_init__(self):
        check_range("augment.rotate", self.rotate, 0, 180)
        check_range("augment.translate", self.translate, 0)
        check_range("augment.scale", self.scale, 0, 0.9)
        check_range("augment.shear", self.shear, 0)
        check_range("augment.elastic", self.elastic, 0)
        check_range("augment.elastic-sigma", self.elastic_sigma, 0.5)
        for name, pair, most in (
            ("crop-scale", self.crop_scale, 1),
            ("crop-ratio", self.crop_ratio, 100),
            ("jitter", self.jitter, 4096),
        ):
            rising = len(pair) == 2 and 0 < pair[0] <= pair[1] <= most
            check(rising, f"augment.{name}", pair, f"two numbers above 0 and at most {most:,}, the smaller first")
        check_range("augment.pad", self.pad, 0, 4096)
        check_range("augment.policy-count", self.policy_count, 1, 14)
        check_range("augment.policy-magnitude", self.policy_magnitude, 0, 30)
        check_range("augment.erase", self.erase, 0, 1)
        check_range("augment.mixup", self.mixup, 0)
        check_range("augment.cutmix", self.cutmix, 0)


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
    """mnist_5k, a TFDS set (name or name:version), folder:DIR, a file.npz, or synthetic:HxWxCLASSES."""
    train_split: str = "train"
    """What is trained on; a part of a split as TFDS writes it, such as "train[:90%]"."""
    test_split: str = "test"
    """The split that is tested on; "validation" for sets such as imagenette."""
    validation: float = 0.0
    """Share of the training images held out: tested on after each epoch in place of the test split,
    which is then tested on once, at the end."""
    bad_images: Literal["error", "skip"] = "error"
    """What an image that cannot be decoded does: it ends the run, or the next one stands in its place."""
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
        check_range("validation", self.validation, 0, 0.9)
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_range("label-smoothing", self.label_smoothing, 0, 0.99)
