"""What a recipe says, and what it may not say."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from cnn_jax.recipes.checks import check, check_range
from cnn_jax.recipes.uses import Caption, Embed, Segment


@dataclass(frozen=True)
class Optimizer:
    """How a gradient becomes a step; cnn_jax/training/optimizer.py has the order of things."""

    kind: Literal["sgd", "rmsprop", "adamw", "lamb"] = "sgd"
    """sgd: with momentum; rmsprop: TensorFlow's, with momentum; adamw: Loshchilov 2017 (1711.05101); lamb:
    You 2019 (1904.00962)."""
    lr: float = 0.1
    """Learning rate at its peak."""
    lr_per: int | None = None
    """Images a step that `lr` is meant for: it is then multiplied by batch-size / lr-per (Goyal 2017, sec. 2.1).
    The rate is `lr` whatever the batch if not given."""
    momentum: float = 0.9
    """sgd and rmsprop: share of the last step that is kept."""
    nesterov: bool = False
    """sgd: look ahead along the momentum."""
    decay: float = 0.9
    """rmsprop: share of the old mean of squares that is kept."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adamw and lamb: shares of the old means of gradients and of their squares that are kept."""
    epsilon: float | None = None
    """Added to the root of the mean of squares, for rmsprop inside the root; if not given 1e-10 for rmsprop
    (TensorFlow's), 1e-8 for adamw (Kingma 2014, alg. 1), 1e-6 for lamb (its authors' code)."""
    weight_decay: float = 0.0
    """sgd and rmsprop: L2, which joins the gradient; adamw and lamb: decoupled, times the rate."""
    decay_on: Literal["kernels", "kernels_but_depthwise", "all"] = "kernels"
    """What decays. kernels: no biases, no normalisation; kernels_but_depthwise: nor depthwise kernels
    (Howard 2017, sec. 3.2); all: every parameter, as in Caffe and TensorFlow before 2017."""
    clip: float = 0.0
    """The longest gradient, as the norm over all parameters before decay joins it; any length if 0."""
    accumulate: int = 1
    """Parts that a step's images are computed in, one after another, to need less memory. Batch normalisation
    and dropout see one part at a time."""
    layer_decay: float = 1.0
    """What the rate is multiplied by from each top-level layer to the one before it, from the head down (Howard & Ruder
    2018, sec. 3.2)."""
    ema: float = 0.0
    """Share of the old moving average of parameters and batch statistics that is kept each step; what is tested
    and saved as the best is the average. None is kept if 0."""

    def __post_init__(self):
        check_range("optimizer.lr", self.lr, 0, open_low=True)
        if self.lr_per is not None:
            check_range("optimizer.lr-per", self.lr_per, 1, 1_000_000)
        check_range("optimizer.momentum", self.momentum, 0, 1)
        check_range("optimizer.decay", self.decay, 0, 1, open_high=True)
        check(len(self.betas) == 2, "optimizer.betas", self.betas, "two numbers")
        for beta in self.betas:
            check_range("optimizer.betas", beta, 0, 1, open_high=True)
        if self.epsilon is not None:
            check_range("optimizer.epsilon", self.epsilon, 0, open_low=True)
        check_range("optimizer.weight-decay", self.weight_decay, 0)
        check_range("optimizer.clip", self.clip, 0)
        check_range("optimizer.accumulate", self.accumulate, 1, 1_000_000)
        check_range("optimizer.layer-decay", self.layer_decay, 0, 1, open_low=True)
        check_range("optimizer.ema", self.ema, 0, 1, open_high=True)


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves, in epochs."""

    kind: Literal["constant", "step", "cosine", "exponential", "polynomial", "plateau"] = "cosine"
    """step: times `factor` at each boundary; cosine: half a period; exponential: times `factor` every `every`
    epochs; polynomial: by (1 - share of the run)^power; plateau: times `factor` when the epoch's mean training
    loss has not improved for `patience` epochs."""
    warmup: float = 0.0
    """Epochs before the peak; a shorter run never reaches it. Cosine and polynomial begin after them, boundaries
    and `every` count from the start."""
    warmup_kind: Literal["linear", "constant"] = "linear"
    """linear: the rate rises from warmup-from to the peak; constant: it stays at warmup-from."""
    warmup_from: float = 0.0
    """Share of the peak at which the warm-up starts."""
    boundaries: tuple[float, ...] = ()
    """step: the epochs at which the rate falls."""
    factor: float = 0.1
    """step, exponential and plateau: what the rate is multiplied by."""
    every: float = 1.0
    """exponential: epochs from one fall to the next."""
    power: float = 1.0
    """polynomial: 1 is a straight line."""
    end: float = 0.0
    """cosine and polynomial: share of the peak that is left in the end."""
    patience: int = 5
    """plateau: epochs without improvement."""
    threshold: float = 1e-4
    """plateau: share of the best loss by which a better one must be lower to count."""

    def __post_init__(self):
        check_range("schedule.warmup", self.warmup, 0, 1_000_000)
        check_range("schedule.warmup-from", self.warmup_from, 0, 1)
        if self.warmup and self.warmup_kind == "constant":
            right = "above 0 with schedule.warmup-kind=constant"
            check(self.warmup_from > 0, "schedule.warmup-from", self.warmup_from, right)
        check_range("schedule.factor", self.factor, 0, 1, open_low=True)
        check_range("schedule.every", self.every, 0, 1_000_000, open_low=True)
        check_range("schedule.power", self.power, 0, 100, open_low=True)
        check_range("schedule.end", self.end, 0, 1)
        check_range("schedule.patience", self.patience, 1)
        check_range("schedule.threshold", self.threshold, 0, 1)
        for boundary in self.boundaries:
            check_range("schedule.boundaries", boundary, 0, open_low=True)
        rising = all(a < b for a, b in zip((0, *self.boundaries), self.boundaries, strict=False))
        check(rising, "schedule.boundaries", self.boundaries, "rising epochs above 0")
        if self.kind == "step":
            check(bool(self.boundaries), "schedule.boundaries", self.boundaries, "given with schedule.kind=step")
        if self.kind == "plateau":
            check(self.factor < 1, "schedule.factor", self.factor, "below 1 with schedule.kind=plateau")


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


MOVING = ("rotate", "translate", "scale", "shear", "elastic", "crop", "policy", "erase")  # or hide


class ModelOptions(dict[str, Any]):
    """Options of create_model by name, as JSON has them; not to be changed, since a recipe is a key."""

    def __hash__(self) -> int:
        return hash(json.dumps(self, sort_keys=True))


OWN = ("stem", "dropout", "stochastic_depth", "zero_init", "remat", "dtype")  # options that are a recipe's own fields


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's result."""

    model: str
    """A name that cnn_jax.list_models() gives."""
    task: Literal["classify", "embed", "segment", "caption"] = "classify"
    """What is learned. classify: one class for each image; embed: vectors that lie close for images of one class;
    segment: one class for each pixel; caption: sentences about an image."""
    stem: Literal["imagenet", "space_to_depth", "deep", "cifar"] | None = None
    """cifar: the network's form for images of 28 to 64 pixels; its own form if not given. Few take the middle two."""
    image_size: int | None = None
    """Pixels a side that images are brought to; the network's own size if not given."""
    model_options: ModelOptions = field(default_factory=ModelOptions)
    """Other options of the network as a JSON object, such as {"shortcut": "A", "se_reduction": 16}; create_model
    checks them. Lists are tuples there."""
    dataset: str = "mnist_5k"
    """mnist_5k, a TFDS set (name or name:version), folder:DIR, a file.npz, masks:DIR, karpathy:FILE.json, or
    synthetic:HxWxCLASSES."""
    train_split: str = "train"
    """What is trained on; a part of a split as TFDS writes it, such as "train[:90%]"."""
    test_split: str = "test"
    """The split that is tested on; "validation" for sets such as imagenette."""
    train_classes: tuple[str, ...] = ()
    """Classes that are trained on, by their names or numbers; all if not given."""
    test_classes: tuple[str, ...] = ()
    """Classes that are tested on; all if not given."""
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
    seeds: int = 1
    """Runs that are trained side by side, from seed, seed + 1, ...; for small networks."""
    loss: Literal["cross_entropy", "bce", "map"] = "cross_entropy"
    """bce: a yes or no for each class (Wightman 2021, sec. 2.1); map: LeNet-5's criterion with a rubbish class
    (LeCun 1998, eq. 9)."""
    bce_threshold: float | None = None
    """bce: a class whose share of the label is above this counts as wholly there, any other as absent, so that
    both images of a mixture are (Wightman 2021, sec. 2.1); shares stay as they are if not given."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    aux_weight: float = 0.3
    """Weight of the auxiliary heads' losses (Szegedy 2014, sec. 5); nothing to networks that have none."""
    dropout: float | None = None
    """Share of the units dropped; the network's own rate if not given."""
    stochastic_depth: float = 0.0
    """Share of the images that skip the last residual block, the earlier ones in proportion (Huang 2016)."""
    zero_init: bool = False
    """Start the scale of each residual block's last batch norm at 0 (Goyal 2017, sec. 5.1)."""
    bn_momentum: float | None = None
    """Share of the old running statistics that is kept each step; the network's own if not given."""
    bn_group_size: int | None = None
    """Images whose statistics batch norm shares, with the same numbers on any number of devices; all of a
    step's (or of one of its parts') if not given."""
    precise_bn: int = 0
    """Training batches over which the running statistics are taken anew before each test; none if 0."""
    start: str | None = None
    """Folder of a run, or published weights such as resnet50.tv_in1k, whose values in layers of the same name and
    shape this one starts from (Simonyan 2015, sec. 3.1)."""
    start_layers: tuple[str, ...] = ("*",)
    """Which of them, as globs over the paths of layers, such as "stage1/*"."""
    freeze_until: str | None = None
    """The first layer that is trained, such as "stage3" or "head": all before keep their values and statistics."""
    freeze_norms: bool = False
    """Batch norms use and keep their running statistics everywhere; scales and biases are trained."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type; parameters and statistics stay float32."""
    remat: tuple[str, ...] = ()
    """Globs over names of blocks, such as "stage1*", whose activations are computed again in the backward pass
    to need less memory; "*" is all."""
    deterministic: bool = False
    """The same bits in every run on a GPU too, by slower kernels that nobody has chosen by speed. A CPU or TPU needs
    nothing for it. To be said at the start of the process: flags of XLA, unless XLA_FLAGS says otherwise."""
    max_skipped: int = 3
    """Steps in a row without effect, because loss or gradient is not finite, after which the run ends."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    augment: Augment = field(default_factory=Augment)
    embed: Embed = field(default_factory=Embed)
    segment: Segment = field(default_factory=Segment)
    caption: Caption = field(default_factory=Caption)

    def __post_init__(self):
        for name, folder in (("data-dir", self.data_dir), ("start", self.start)):
            if folder is not None:
                check(folder.isprintable() and bool(folder.strip()), name, repr(folder), "a folder")
        check_range("epochs", self.epochs, 1, 1_000_000)
        check_range("batch-size", self.batch_size, 1, 1_000_000)
        parts = self.optimizer.accumulate
        check(
            self.batch_size % parts == 0, "batch-size", self.batch_size, f"a multiple of optimizer.accumulate={parts}"
        )
        # A plain dict has no hash.
        object.__setattr__(self, "model_options", ModelOptions(self.model_options))
        for option in self.model_options:
            check(option not in OWN, f"model-options.{option}", "here", f"given as --{option.replace('_', '-')}")
            check(option != "num_classes", "model-options.num_classes", "here", "left to the data set")
        if self.image_size is not None:
            check_range("image-size", self.image_size, 1, 4096)
        check_range("validation", self.validation, 0, 0.9)
        check_range("seeds", self.seeds, 1, 1024)
        check_range("seed", self.seed, 0, 2**32 - self.seeds)
        if self.bce_threshold is not None:
            check_range("bce-threshold", self.bce_threshold, 0, 1, open_high=True)
        check_range("label-smoothing", self.label_smoothing, 0, 0.99)
        check_range("aux-weight", self.aux_weight, 0)
        if self.dropout is not None:
            check_range("dropout", self.dropout, 0, 1, open_high=True)
        check_range("stochastic-depth", self.stochastic_depth, 0, 1, open_high=True)
        if self.bn_momentum is not None:
            check_range("bn-momentum", self.bn_momentum, 0, 1, open_high=True)
        if self.bn_group_size is not None:
            check_range("bn-group-size", self.bn_group_size, 1, 1_000_000)
            right = f"a divisor of the {self.batch_size // parts} images that are computed at once"
            divides = self.batch_size // parts % self.bn_group_size == 0
            check(divides, "bn-group-size", self.bn_group_size, right)
        check_range("precise-bn", self.precise_bn, 0, 1_000_000)
        if self.task != "classify":
            for name, value, usual in (
                ("loss", self.loss, "cross_entropy"),
                ("label-smoothing", self.label_smoothing, 0),
                ("augment.mixup", self.augment.mixup, 0),
                ("augment.cutmix", self.augment.cutmix, 0),
                ("seeds", self.seeds, 1),
            ):
                check(value == usual, name, value, f"{usual} with task={self.task}")
        if self.task == "embed":
            self.embed.check_batch(self.batch_size, parts)
        if self.task == "segment":
            for name in MOVING:  # a mask would have to move along
                value = getattr(self.augment, name)
                right = "left out with task=segment, whose masks pad and flip move (--recipe unet_small has none)"
                check(not value, f"augment.{name}", value, right)
        if self.seeds > 1:
            check(self.precise_bn == 0, "precise-bn", self.precise_bn, "0 with seeds above 1")
            check(self.start is None, "start", self.start, "left out with seeds above 1")
        if self.freeze_until is not None:
            check(bool(self.freeze_until.strip()), "freeze-until", repr(self.freeze_until), "the name of a layer")
        check_range("max-skipped", self.max_skipped, 1, 1_000_000)
        for name, globs in (("start-layers", self.start_layers), ("remat", self.remat)):
            check(all(glob.strip() for glob in globs), name, globs, 'names or globs such as "stage1*"')
