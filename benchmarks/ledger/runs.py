"""What is trained: a recipe for each run, by name, all on Fashion-MNIST but for those of LeNet-5 on the digits.

Two runs of a claim differ by what it is about and by nothing else; a run may stand in several claims. Sizes are chosen
so that a run takes one to five minutes of one core; `part` says how many of the 60,000 training images it sees.
"""

from dataclasses import replace

from cnn_jax.recipes import RECIPES, Augment, Optimizer, Recipe, Schedule
from cnn_jax.recipes.datasets import DISTORTIONS
from cnn_jax.recipes.recipe import ModelOptions


def part(images: int) -> str:
    """So many of the first training images."""
    return f"train[:{images}]"


def with_options(recipe: Recipe, **options: object) -> Recipe:
    """The recipe with options of its network besides."""
    return replace(recipe, model_options=ModelOptions({**recipe.model_options, **options}))


def with_rate(recipe: Recipe, rate: float) -> Recipe:
    """The recipe at another learning rate."""
    return replace(recipe, optimizer=replace(recipe.optimizer, lr=rate))


# Krizhevsky's small network: 20,000 images five times.
FOUR = Recipe(
    "four_layers",
    dataset="fashion_mnist",
    train_split=part(20_000),
    epochs=5,
    batch_size=64,
    optimizer=Optimizer(lr=0.005, momentum=0.9, weight_decay=5e-4),
    schedule=Schedule(kind="cosine"),
)
# As fig. 1 has it: no regularisation, a rate of each network's own (of 0.005, 0.01, 0.02, 0.05 the one that was fastest
# with seed 0).
SPEED = replace(
    FOUR, epochs=2, optimizer=Optimizer(lr=0.02, momentum=0.9), schedule=Schedule(kind="constant"), train_split="train"
)
# Few images, many times: what overfits.
FEW = replace(with_options(FOUR, hidden=256), train_split=part(4_000), test_split="test[:5000]", epochs=20)
# 24 pixels of 28, as 224 of 256.
CROPS = replace(FOUR, image_size=24, augment=Augment(crop="scale_jitter", jitter=(28, 28), flip=True))
NORMALIZED = with_options(FOUR, normalized=True)

# Networks of sec. 4.2 of He 2015, images of 14x14 pixels. The rate is a fifth of the paper's: from 0.1 the plain ones
# do not recover in so few steps.
DEEP = Recipe(
    "resnet20_cifar",
    dataset="fashion_mnist",
    train_split=part(6_400),
    test_split="test[:2000]",
    image_size=14,
    epochs=3,
    batch_size=64,
    optimizer=Optimizer(lr=0.02, momentum=0.9, weight_decay=1e-4),
    schedule=Schedule(kind="step", boundaries=(1.5, 2.5)),
)
# At 110 layers half as many, for the minutes.
DEEPEST = replace(
    DEEP, train_split=part(3_200), test_split="test[:1000]", epochs=4,
    schedule=Schedule(kind="step", boundaries=(2, 3)),
)  # fmt: skip
# Shallow ones on more.
BLOCKS = replace(
    DEEP, train_split=part(8_000), test_split="test", epochs=5, optimizer=replace(DEEP.optimizer, lr=0.05),
    schedule=Schedule(kind="cosine"),
)  # fmt: skip
GOOGLE = replace(DEEPEST, model="googlenet", image_size=32, optimizer=replace(DEEP.optimizer, lr=0.01))

# All 60,000 images, moved and mirrored; for the figures that were published.
WHOLE = Recipe(
    "resnet18",
    dataset="fashion_mnist",
    image_size=28,
    epochs=30,
    batch_size=128,
    optimizer=Optimizer(lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    schedule=Schedule(kind="cosine", warmup=1),
    augment=Augment(pad=2, flip=True),
)
GPU = replace(WHOLE, stem="cifar", dtype="bfloat16")

RUNS: dict[str, Recipe] = {
    "four_layers": FOUR,
    "relu": with_rate(SPEED, 0.005),
    "tanh": with_options(with_rate(SPEED, 0.02), act="tanh"),
    "pools_apart": with_options(FOUR, overlapping=False),
    "lrn": with_options(FOUR, lrn=True),
    "two_3x3": with_options(FOUR, conv="two 3x3"),
    "separable": with_options(FOUR, conv="separable"),
    "smoothed": replace(FOUR, label_smoothing=0.1),
    "few": FEW,
    "few_dropout": replace(FEW, dropout=0.5),
    "few_augmented": replace(FEW, augment=Augment(pad=2, flip=True)),
    "crops": CROPS,
    "rate_x5": with_rate(FOUR, 0.025),
    "rate_x30": with_rate(FOUR, 0.15),
    "normalized": NORMALIZED,
    "normalized_x5": with_rate(NORMALIZED, 0.025),
    "normalized_x30": with_rate(NORMALIZED, 0.15),
    "normalized_by_8": replace(with_rate(NORMALIZED, 0.025), bn_group_size=8),
    "normalized_by_2": replace(with_rate(NORMALIZED, 0.025), bn_group_size=2),
    **{
        f"{kind}{depth}": replace(DEEP, model=f"{kind}{depth}_cifar")
        for depth in (20, 32, 44, 56)
        for kind in ("plain", "resnet")
    },
    "resnet110": replace(DEEPEST, model="resnet110_cifar"),
    "preresnet110": replace(DEEPEST, model="preresnet110_cifar"),
    "stochastic_depth": replace(DEEP, model="resnet56_cifar", stochastic_depth=0.5),
    **{f"shortcut_{kind}": with_options(replace(BLOCKS, model="small_resnet"), shortcut=kind) for kind in "ABC"},
    "se": with_options(replace(BLOCKS, model="small_resnet"), shortcut="A", se_reduction=16),
    "small_densenet": replace(BLOCKS, model="small_densenet"),
    "small_bottleneck": replace(BLOCKS, model="small_bottleneck"),
    "small_resnext": replace(BLOCKS, model="small_resnext"),
    "thin_wrn": replace(BLOCKS, model="thin_wrn"),
    "wide_wrn": replace(BLOCKS, model="wide_wrn"),
    "googlenet": GOOGLE,
    "googlenet_no_aux": with_options(GOOGLE, aux=False),
    "lenet1": replace(RECIPES["lenet1_1989"], epochs=20, augment=DISTORTIONS),  # as the next
    "lenet5_1998": RECIPES["lenet5_1998"],
    "lenet5_modern": RECIPES["lenet5_modern"],
    "two_convolutions": replace(
        with_options(FOUR, widths=[32, 64], hidden=1024, overlapping=False), train_split="train", epochs=8, dropout=0.4
    ),
    "resnet20_all": replace(WHOLE, model="resnet20_cifar", epochs=6),
    # For a GPU.
    "googlenet_all": replace(GPU, model="googlenet_bn"),
    "vgg16_all": replace(GPU, model="vgg16_bn"),
    "resnet18_all": replace(GPU, model="resnet18"),
    "mobilenet_all": replace(GPU, model="mobilenet_100"),
    "densenet_all": replace(GPU, model="densenet_bc_100_12", epochs=60),
    "wrn_28_10_all": replace(GPU, model="wrn_28_10", stem=None, epochs=60),
    "wrn_28_10_erased": replace(GPU, model="wrn_28_10", stem=None, epochs=60, augment=replace(GPU.augment, erase=0.5)),
    "wrn_40_4_all": replace(GPU, model="wrn_40_4", stem=None, epochs=60, augment=replace(GPU.augment, erase=0.5)),
}  # fmt: skip
