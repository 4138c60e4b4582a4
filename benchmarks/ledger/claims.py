"""The rows of the ledger: what a paper says, which runs show it, and by which figure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from benchmarks.ledger.results import Wanted

CHANCE = 90.0  # percent wrong: of a run that was given up because its numbers were bad
LAST = 5  # records of 20 steps over which a training error is taken


@dataclass(frozen=True)
class Figure:
    """A number of a run's result, the lower the better."""

    name: str
    of: Callable[[dict[str, Any]], float]
    digits: int = 2


def _training_error(run: dict[str, Any]) -> float:
    tops = [top1 for _, _, top1 in run["training"][-LAST:]]
    return CHANCE if run["failed"] else 100 * (1 - sum(tops) / len(tops))


def steps_to(error: int) -> Figure:
    """The first step at which so many percent of the last hundred steps' training images were wrong."""

    def of(run: dict[str, Any]) -> float:
        records = run["training"]
        for at in range(LAST, len(records) + 1):
            if 100 * (1 - sum(top1 for _, _, top1 in records[at - LAST : at]) / LAST) <= error + 1e-9:
                return records[at - 1][0]
        return float("nan")

    return Figure(f"steps to {error} % training error", of, 0)


def by(*protocol: str) -> Figure:
    """The test error by another protocol of `cnn-jax evaluate`."""
    return Figure(f"test error, {protocol[0]}, %", lambda run: 100 * (1 - run["protocols"][" ".join(protocol)]))


ERROR = Figure("test error, %", lambda run: CHANCE if run["failed"] else 100 * (1 - run["test_top1"]))
TRAINING = Figure("training error, %", _training_error)
PARAMS = Figure("parameters", lambda run: run["params"] or float("nan"), 0)
MACS = Figure("million multiply-adds", lambda run: run["macs"] / 1e6, 1)
RATE = Figure("ms an image, one core", lambda run: 1000 / run["images_per_s"] if run["images_per_s"] else float("nan"))


@dataclass(frozen=True)
class Row:
    """A claim.

    `arms` are the runs by what they are called in its table, with another figure than the row's first where they have
    one; `lower` pairs those of which the claim says that the first has the lower figure, `published` are errors to meet
    or beat. `minutes` of one core were planned for it; rows with `gpu` are not for a CPU.
    """

    name: str
    claim: str
    source: str
    arms: dict[str, str | tuple[str, Figure]]
    lower: tuple[tuple[str, str], ...] = ()
    minutes: int = 0
    figures: tuple[Figure, ...] = (ERROR,)
    seeds: int = 3
    protocols: tuple[tuple[str, ...], ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    gpu: bool = False

    def run_of(self, arm: str) -> str:
        """The run of an arm."""
        of = self.arms[arm]
        return of if isinstance(of, str) else of[0]

    def value(self, arm: str, result: dict[str, Any]) -> float:
        """The figure that the claim is about."""
        of = self.arms[arm]
        return (self.figures[0] if isinstance(of, str) else of[1]).of(result)

    def wanted(self) -> list[Wanted]:
        """What has to be trained for it, each seed of all arms before the next seed."""
        runs = dict.fromkeys(self.run_of(arm) for arm in self.arms)
        return [Wanted(run, seed, self.protocols) for seed in range(self.seeds) for run in runs]


ONE_CROP, TEN_CROPS = ("center", "--resize", "28"), ("ten_crop", "--resize", "28")
HE = "He, Zhang, Ren & Sun 2015 (1512.03385)"
KRIZHEVSKY = "Krizhevsky, Sutskever & Hinton 2012"
FASHION = "github.com/zalandoresearch/fashion-mnist, benchmark"
DEPTHS = (20, 32, 44, 56)

ROWS = (
    Row(
        "relu-tanh",
        "A four-layer network with ReLUs reaches 25 % training error on CIFAR-10 six times faster than with tanh",
        f"{KRIZHEVSKY}, fig. 1",
        {"ReLU": "relu", "tanh": "tanh"},
        (("ReLU", "tanh"),),
        22,
        (steps_to(25), steps_to(15), ERROR),
    ),
    Row(
        "overlapping-pools",
        "Pools of 3x3 and stride 2 in place of 2x2: 0.4 points less top-1 error",
        f"{KRIZHEVSKY}, sec. 3.4",
        {"3x3, stride 2": "four_layers", "2x2": "pools_apart"},
        (("3x3, stride 2", "2x2"),),
        10,
    ),
    Row(
        "lrn",
        "Response normalisation: 13 % test error on CIFAR-10 without, 11 % with it",
        f"{KRIZHEVSKY}, sec. 3.3",
        {"with": "lrn", "without": "four_layers"},
        (("with", "without"),),
        8,
    ),
    Row(
        "dropout",
        "Without dropout the network overfits substantially",
        f"{KRIZHEVSKY}, sec. 4.2",
        {"dropout 0.5": "few_dropout", "none": "few"},
        (("dropout 0.5", "none"),),
        14,
        (ERROR, TRAINING),
    ),
    Row(
        "augmentation",
        "Without crops and mirrors the network overfits substantially",
        f"{KRIZHEVSKY}, sec. 4.1",
        {"crops and mirrors": "few_augmented", "none": "few"},
        (("crops and mirrors", "none"),),
        7,
        (ERROR, TRAINING),
    ),
    Row(
        "ten-crops",
        "Ten crops instead of one: 39.0 to 37.5 % top-1 error",
        f"{KRIZHEVSKY}, sec. 4.1, table 1",
        {"ten crops": ("crops", by(*TEN_CROPS)), "one crop": ("crops", by(*ONE_CROP))},
        (("ten crops", "one crop"),),
        8,
        protocols=(ONE_CROP, TEN_CROPS),
    ),
    Row(
        "two-3x3",
        "One 5x5 in place of two 3x3: 7 points more top-1 error",
        "Simonyan & Zisserman 2014 (1409.1556), sec. 4",
        {"two 3x3": "two_3x3", "one 5x5": "four_layers"},
        (("two 3x3", "one 5x5"),),
        9,
        (ERROR, PARAMS, MACS, RATE),
    ),
    Row(
        "auxiliary-heads",
        "Auxiliary heads in the middle help a deep network: around half a point",
        "Szegedy et al. 2015 (CVPR; 1409.4842 has no figure), sec. 5",
        {"with": "googlenet", "without": "googlenet_no_aux"},
        (("with", "without"),),
        18,
        (ERROR, TRAINING),
    ),
    Row(
        "batch-norm",
        "Batch norm lets a network learn at 5 and 30 times the rate, and better than without it at its own",
        "Ioffe & Szegedy 2015 (1502.03167), sec. 4.2, fig. 3",
        {
            "with": "normalized",
            "without": "four_layers",
            "with, 5 times the rate": "normalized_x5",
            "without, 5 times the rate": "rate_x5",
            "with, 30 times the rate": "normalized_x30",
            "without, 30 times the rate": "rate_x30",
        },
        (
            ("with", "without"),
            ("with, 5 times the rate", "without, 5 times the rate"),
            ("with, 30 times the rate", "without, 30 times the rate"),
            ("with, 5 times the rate", "without"),
            ("with, 30 times the rate", "without"),
        ),
        30,
    ),
    Row(
        "batch-norm-groups",
        "Statistics of two images instead of 32: 34.7 instead of 23.6 % error",
        "Wu & He 2018 (1803.08494), table 2",
        {"of 64": "normalized_x5", "of 8": "normalized_by_8", "of 2": "normalized_by_2"},
        (("of 64", "of 2"), ("of 8", "of 2")),
        14,
    ),
    Row(
        "label-smoothing",
        "Label smoothing of 0.1: 0.2 points less top-1 error",
        "Szegedy et al. 2015 (1512.00567), sec. 7",
        {"0.1": "smoothed", "none": "four_layers"},
        (("0.1", "none"),),
        6,
    ),
    Row(
        "degradation",
        "Deeper plain networks have the higher training error, residual ones the lower",
        f"{HE}, fig. 6, table 2",
        {
            f"{kind}, {depth}": f"{name}{depth}"
            for kind, name in (("plain", "plain"), ("residual", "resnet"))
            for depth in DEPTHS
        },
        (
            ("plain, 20", "plain, 56"),
            ("residual, 56", "residual, 20"),
            *((f"residual, {depth}", f"plain, {depth}") for depth in DEPTHS),
        ),
        30,
        (TRAINING, ERROR),
    ),
    Row(
        "shortcuts",
        "ResNet-34's top-1 error falls from zeros (A, 25.03) over projections where shapes change (B, 24.52) to "
        "projections everywhere (C, 24.19)",
        f"{HE}, table 3",
        {"A": "shortcut_A", "B": "shortcut_B", "C": "shortcut_C"},
        (("B", "A"), ("C", "B")),
        8,
        (ERROR, TRAINING, PARAMS),
    ),
    Row(
        "pre-activation",
        "Norm and ReLU before the convolutions: 110 layers err in 6.37 instead of 6.61 % of CIFAR-10, 1001 in 4.92 "
        "instead of 7.61",
        "He, Zhang, Ren & Sun 2016 (1603.05027), table 3",
        {"pre-activation, 110": "preresnet110", "ResNet-110": "resnet110"},
        (("pre-activation, 110", "ResNet-110"),),
        16,
        (TRAINING, ERROR),
    ),
    Row(
        "stochastic-depth",
        "Skipping blocks at random: 5.23 instead of 6.41 % error, 110 layers, CIFAR-10",
        "Huang et al. 2016 (1603.09382), table 1",
        {"half of the last block": "stochastic_depth", "none": "resnet56"},
        (("half of the last block", "none"),),
        7,
        (ERROR, TRAINING, RATE),
    ),
    Row(
        "width-depth",
        "A wide shallow network is as good as a thin deep one of as many parameters, and faster",
        "Zagoruyko & Komodakis 2016 (1605.07146), sec. 3, table 4",
        {"WRN-10-2": "wide_wrn", "WRN-28-1": "thin_wrn"},
        (("WRN-10-2", "WRN-28-1"),),
        6,
        (ERROR, PARAMS, MACS, RATE),
    ),
    Row(
        "cardinality",
        "More paths rather than wider ones at the same cost: ResNet-50 errs in 23.9, ResNeXt-50 32x4d in 22.2 %",
        "Xie et al. 2016 (1611.05431), table 3",
        {"4 x 6 channels": "small_resnext", "1 x 16 channels": "small_bottleneck"},
        (("4 x 6 channels", "1 x 16 channels"),),
        8,
        (ERROR, PARAMS, MACS, RATE),
    ),
    Row(
        "dense",
        "A DenseNet is better than a ResNet of as many parameters",
        "Huang et al. 2016 (1608.06993), fig. 4",
        {"DenseNet-BC, 52 layers": "small_densenet", "ResNet-20": "shortcut_A"},
        (("DenseNet-BC, 52 layers", "ResNet-20"),),
        7,
        (ERROR, PARAMS, MACS, RATE),
    ),
    Row(
        "separable",
        "Depthwise separable convolutions cost a point (71.7 to 70.6 % top-1) for a ninth of the multiply-adds",
        "Howard et al. 2017 (1704.04861), table 4",
        {"full": "four_layers", "separable": "separable"},
        (("full", "separable"),),
        6,
        (ERROR, PARAMS, MACS, RATE),
    ),
    Row(
        "squeeze-excitation",
        "ResNet-50's top-1 error falls from 24.80 to 23.29 % by squeeze-and-excitation",
        "Hu et al. 2017 (1709.01507), table 2",
        {"with": "se", "without": "shortcut_A"},
        (("with", "without"),),
        4,
        (ERROR, PARAMS, MACS, RATE),
    ),
    Row(
        "lenet-order",
        "LeNet-1 errs in 1.7, LeNet-5 in 0.95 % of MNIST's test images",
        "LeCun et al. 1998, fig. 9",
        {"LeNet-5": "lenet5_1998", "LeNet-1": "lenet1"},
        (("LeNet-5", "LeNet-1"),),
        10,
        (ERROR, TRAINING, PARAMS, MACS),
        seeds=10,
    ),
    Row(
        "lenet-eras",
        "The LeNet-5 of today (dense, ReLU, max pooling) is better than that of 1998",
        "popular; of no paper",
        {"modern": "lenet5_modern", "1998": "lenet5_1998"},
        (("modern", "1998"),),
        15,
        (ERROR, TRAINING),
        seeds=10,
    ),
    Row(
        "published-two-convolutions",
        "Two convolutions with pools: 91.6 % of Fashion-MNIST's test images",
        FASHION,
        {"two convolutions": "two_convolutions"},
        minutes=40,
        published={"two convolutions": 8.4},
    ),
    Row(
        "published-resnet20",
        "A ResNet-18 gets 94.9 % of them; here a ResNet-20 of a fortieth of its parameters",
        FASHION,
        {"ResNet-20": "resnet20_all"},
        minutes=60,
        published={"ResNet-20": 5.1},
    ),
    *(
        Row(
            f"published-{name.lower()}",
            f"{name}: {100 - error:.1f} % of Fashion-MNIST's test images",
            FASHION,
            {name: run},
            published={name: error},
            gpu=True,
        )
        for name, run, error in (
            ("GoogLeNet", "googlenet_all", 6.3),
            ("VGG-16", "vgg16_all", 6.5),
            ("ResNet-18", "resnet18_all", 5.1),
            ("MobileNet", "mobilenet_all", 5.0),
            ("DenseNet-BC", "densenet_all", 4.6),
            ("WRN-28-10", "wrn_28_10_all", 4.1),
            ("WRN-28-10-erasing", "wrn_28_10_erased", 3.7),
            ("WRN-40-4", "wrn_40_4_all", 3.3),
        )
    ),
)
BY_NAME = {row.name: row for row in ROWS}


def wanted(rows: tuple[Row, ...]) -> list[Wanted]:
    """All that has to be trained for some rows, once each."""
    found: dict[tuple[str, int], Wanted] = {}
    for one in chain.from_iterable(row.wanted() for row in rows):
        known = found.get(one[:2], one)
        found[one[:2]] = one._replace(protocols=tuple(dict.fromkeys(known.protocols + one.protocols)))
    return list(found.values())
