"""Claims that are counted, not trained: of the papers, and against what is often read (docs/errata.md)."""

from collections.abc import Callable
from dataclasses import dataclass

from flax.traverse_util import flatten_dict

from cnn_jax.models import model_info
from cnn_jax.models.resnet import BasicBlock, Bottleneck
from cnn_jax.models.structure import Layer, structure
from cnn_jax.recipes import RECIPES


@dataclass(frozen=True)
class Count:
    """A claim with its source, what is counted here, what the claim says it is, and how near is near enough."""

    claim: str
    source: str
    found: Callable[[], float]
    claimed: float
    within: float = 0

    @property
    def holds(self) -> bool:
        """Whether the claim is what is counted."""
        return abs(self.found() - self.claimed) <= self.within


def _layers(name: str) -> tuple[Layer, ...]:
    return model_info(name).structure.layers


def _kernels(name: str) -> list[tuple[int, ...]]:
    """Shapes of the convolutions' kernels, (kh, kw, C // groups, features), without those of heads."""
    params = flatten_dict(model_info(name).structure.variables["params"])
    return [leaf.shape for path, leaf in params.items() if leaf.ndim == 4 and not path[0].startswith(("fc", "aux"))]


def _a_position(block: type, channels: int) -> float:
    """Multiply-adds of a block of width 64 at one position of a map of `channels`, without its shortcut."""
    return structure(block(64, shortcut=None), (8, 8, channels)).macs / 64


def _side(name: str, tap: str) -> float:
    return model_info(name).structure.taps[tap][0]


LECUN = "LeCun, Bottou, Bengio & Haffner 1998, sec. II.B"
KRIZHEVSKY = "Krizhevsky, Sutskever & Hinton 2012, sec. 3.5"
VGG = "Simonyan & Zisserman 2014 (1409.1556)"
GOOGLE = "Szegedy et al. 2014 (1409.4842), table 1"
HE = "He, Zhang, Ren & Sun 2015 (1512.03385)"

COUNTS = (
    Count(
        "LeNet-1 has 2,578 independent parameters",
        "LeCun et al. 1989 (NIPS 2), p. 402",
        lambda: model_info("lenet1").params,
        2_578,
    ),
    Count(
        "LeNet-5 has 60,000 parameters that are trained, not 65 thousand",
        LECUN,
        lambda: model_info("lenet5").params,
        60_000,
    ),
    Count(
        "It does not pool by maxima: S2 has 12 parameters",
        LECUN,
        lambda: sum(layer.params for layer in _layers("lenet5") if layer.path == "s2"),
        12,
    ),
    Count(
        "AlexNet has five convolutions, not four",
        KRIZHEVSKY,
        lambda: len(_kernels("alexnet")),
        5,
    ),
    Count(
        "It has three fully connected layers, not four",
        KRIZHEVSKY,
        lambda: sum(layer.path.startswith(("fc", "head")) for layer in _layers("alexnet")),
        3,
    ),
    Count(
        "VGG-16 does not have fewer parameters than AlexNet: it has 2.27 times as many",
        f"{VGG}, table 2",
        lambda: model_info("vgg16").params / model_info("alexnet").params,
        2.27,
        0.005,
    ),
    Count(
        "VGG does not keep one number of channels: it has four, 64 to 512",
        f"{VGG}, table 1",
        lambda: len({shape[3] for shape in _kernels("vgg16")}),
        4,
    ),
    Count(
        "GoogLeNet has nine inception modules",
        GOOGLE,
        lambda: sum(name.startswith("inception") for name in model_info("googlenet").structure.taps),
        9,
    ),
    Count(
        "It does not have nine sizes of filters: 1, 3 and 5, and 7 in the stem",
        GOOGLE,
        lambda: len({shape[0] for shape in _kernels("googlenet")}),
        4,
    ),
    Count(
        "ResNet's weight decay is 1e-4, not 1e-5",
        f"{HE}, sec. 3.4",
        lambda: RECIPES["resnet50_v1_imagenet"].optimizer.weight_decay,
        1e-4,
    ),
    Count(
        "A bottleneck of 1x1, 3x3, 1x1 on 256 channels costs about what two 3x3 on 64 do: multiply-adds, as a ratio",
        f"{HE}, fig. 5",
        lambda: _a_position(Bottleneck, 256) / _a_position(BasicBlock, 64),
        1,
        0.1,
    ),
    Count(
        "Its 3x3 is not depthwise: each filter sees 64 channels",
        f"{HE}, fig. 5",
        lambda: next(shape[2] for shape in _kernels("resnet50") if shape[0] == 3),
        64,
    ),
    Count(
        "ResNet v2 does pool: the side of the stem's maps is twice that of the first stage's",
        "He, Zhang, Ren & Sun 2016 (1603.05027), appendix",
        lambda: _side("preresnet18", "stem") / _side("preresnet18", "stage1"),
        2,
    ),
    Count(
        "MobileNet takes 569 million multiply-adds",
        "Howard et al. 2017 (1704.04861), table 4",
        lambda: model_info("mobilenet_100").macs / 1e6,
        569,
        0.5,
    ),
)
