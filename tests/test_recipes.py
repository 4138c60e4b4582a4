"""The recipes of the papers: complete, printed in docs/recipes.md, and each one a step that can be taken."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_jit

from cnn_jax.data import composed, mnist_5k
from cnn_jax.data.order import Timeline
from cnn_jax.models import FAMILIES, MODELS
from cnn_jax.recipes import (
    PAPERS,
    RECIPES,
    Optimizer,
    Schedule,
    densenet,
    dpn,
    inception,
    inception_v4,
    mnasnet,
    mobilenet_v3,
    nasnet,
    one_hour,
    pnasnet,
    preresnet,
    resnet,
    senet,
    shufflenet,
    strikes_back,
    xception,
)
from cnn_jax.tasks import image_size
from cnn_jax.training.optimizer import make_rate
from cnn_jax.training.program import Program
from cnn_jax.training.step import train_step

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
# Training images, classes and channels of each data set: Russakovsky 2014 (1409.0575), table 2; Krizhevsky 2009.
SETS = {
    "imagenet2012": (1_281_167, 1000, 3),
    "cifar10": (50_000, 10, 3),
    "mnist_5k": (4_000, 10, 1),
    "fashion_5k": (4_000, 10, 1),
    "composed_masks": (8_000, 16, 1),
    "composed_captions": (8_000, len(composed.VOCABULARY), 1),
}
# Of one image; () where it is a class.
LABELS = {"caption": composed.Captions.label_shape, "segment": composed.Masks.label_shape}
DIGITS = [name for name, recipe in RECIPES.items() if recipe.dataset == "mnist_5k"]
# Their programs take long to compile.
BRANCHED = (
    "googlenet", "inception", "bn_inception", "xception", "mobilenet", "seresnet", "shufflenet", "dpn", "nasnet",
    "pnasnet", "mnasnet",
)  # fmt: skip


def program(recipe):
    size, classes, channels = SETS[recipe.dataset]
    return Program(recipe, Timeline(size, recipe.batch_size, recipe.epochs), classes, channels)


def test_no_two_recipes_share_a_name():
    assert sum(len(paper.RECIPES) for paper in PAPERS) == len(RECIPES)


def test_every_file_of_recipes_is_read():
    folder = Path(PAPERS[0].__file__).parent
    plain = {"__init__", "recipe", "checks", "uses", "configuration", "command_line", "datasets"}
    assert {path.stem for path in folder.glob("*.py")} - plain == {paper.__name__.split(".")[-1] for paper in PAPERS}


def name_of(family):
    return family.__name__.split(".")[-1]


@pytest.mark.parametrize("family", FAMILIES, ids=name_of)
def test_every_family_has_a_recipe_and_a_small_one(family):
    """Small: images of at most 32 pixels."""
    own = [recipe for recipe in RECIPES.values() if recipe.model in {row.name for row in family.VARIANTS}]
    assert any(max(image_size(recipe)) <= 32 for recipe in own)
    if any(max(row.input_size[:2]) >= 224 and row.num_classes == 1000 for row in family.VARIANTS):
        assert any(recipe.dataset == "imagenet2012" for recipe in own)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.task in ("classify", "embed")])
def test_the_form_of_a_network_fits_its_images(name):
    """Scenes with masks, of several things, are seen by a network's own form at 64 pixels too."""
    recipe = RECIPES[name]
    small = recipe.stem == "cifar" or max(MODELS[recipe.model].input_size[:2]) <= 32
    assert (max(image_size(recipe)) <= 64) == small
    assert (recipe.dataset == "imagenet2012") == (not small)


# Others have one worker's images, or no norm.
GROUPED = (
    resnet, preresnet, densenet, shufflenet, dpn, nasnet, pnasnet, mnasnet, mobilenet_v3, senet, one_hour, strikes_back,
)  # fmt: skip


def test_recipes_for_accelerators_are_fast_there_and_those_for_a_cpu_here():
    """bfloat16, and on many devices no batch norm that waits for others; a CPU loses by the first."""
    for paper in PAPERS:
        for name, recipe in paper.RECIPES.items():
            large = recipe.dataset == "imagenet2012"
            assert recipe.dtype == ("bfloat16" if large else "float32"), name
            assert (recipe.bn_group_size is not None) == (large and paper in GROUPED), name
            if recipe.bn_group_size:  # whole groups on each of 8 devices
                assert 16 <= recipe.bn_group_size <= 128 and recipe.batch_size % (8 * recipe.bn_group_size) == 0, name


LONG_TO_TRACE = (dpn, inception, inception_v4, mnasnet, nasnet, pnasnet, preresnet, xception)
ONE_OF_EACH_PAPER = {next(iter(paper.RECIPES)) for paper in PAPERS if paper not in LONG_TO_TRACE}


@pytest.mark.parametrize(
    "name", [name if name in ONE_OF_EACH_PAPER else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_a_recipe_computes_a_step_at_its_own_size(name):
    """By shapes alone: its network takes its options, its images and its optimiser, and the state keeps its shape."""
    recipe = RECIPES[name]
    made = program(recipe)
    images = jax.ShapeDtypeStruct((recipe.batch_size, *made.size, made.channels), jnp.uint8)
    labels = jax.ShapeDtypeStruct((recipe.batch_size, *LABELS.get(recipe.task, ())), jnp.int32)
    state = jax.eval_shape(made.init, 0)
    after, metrics = jax.eval_shape(partial(train_step, made), state, {"image": images, "label": labels})
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()


def marked(name):
    return pytest.param(name, marks=pytest.mark.slow) if name.startswith(BRANCHED) else name


@pytest.mark.parametrize("name", [marked(name) for name in DIGITS])
def test_a_small_recipe_takes_two_steps(name):
    """Without its warm-up, whose first rates are too small to see; the second step moves what starts at scale 0."""
    recipe = RECIPES[name]
    made = program(replace(recipe, batch_size=8, schedule=replace(recipe.schedule, warmup=0.0)))
    images, labels = mnist_5k.read_split("train")
    batch = {"image": images[::500], "label": labels[::500]}
    step = quick_jit(partial(train_step, made))
    before = state = quick_jit(made.init)(0)
    for _ in range(2):
        state, metrics = step(state, batch)
    assert int(state.step) == 2 and int(metrics["skipped"]) == 0 and float(metrics["lr"]) > 0
    pairs = list(zip(jax.tree.leaves(before.params), jax.tree.leaves(state.params), strict=True))
    assert all(np.isfinite(after).all() for _, after in pairs)
    still = [np.array_equal(a, b) for a, b in pairs]
    assert np.mean(still) < 0.1  # a bias in front of a batch norm may be


def optimizer_words(config: Optimizer) -> str:
    words = [f"{config.kind} {config.lr:g}" + (f" per {config.lr_per:,} images" if config.lr_per else "")]
    if config.kind in ("sgd", "rmsprop"):
        words.append(f"{'Nesterov ' if config.nesterov else 'momentum '}{config.momentum:g}")
    if config.kind == "rmsprop":
        words += [f"squares {config.decay:g}", f"epsilon {config.epsilon:g}"]
    if config.weight_decay:
        on = {"kernels": "", "kernels_but_depthwise": " but depthwise", "all": " on all"}[config.decay_on]
        words.append(f"decay {config.weight_decay:g}{on}")
    words += [f"clip {config.clip:g}"] if config.clip else []
    words += [f"average {config.ema:g}"] if config.ema else []
    return ", ".join(words)


def schedule_words(config: Schedule) -> str:
    falls = ", ".join(f"{boundary:g}" for boundary in config.boundaries)
    words = {
        "step": f"times {config.factor:g} at {falls}",
        "cosine": "cosine",
        "plateau": f"times {config.factor:g} on a plateau of {config.patience}",
        "polynomial": f"to 0 by the power of {config.power:g}",
        "exponential": f"times {config.factor:g} every {config.every:.3g}",
    }[config.kind]
    start = f" at {config.warmup_from:.2g}" if config.warmup_kind == "constant" else ""
    return words + (f", {config.warmup:.2g} of warm-up{start}" if config.warmup else "")


def table(paper) -> str:
    """A paper's part of the page, but for what is said of it."""

    def batch(r) -> str:
        return f"{r.batch_size:,}" + (f" by {r.bn_group_size}" if r.bn_group_size else "")

    rows = [
        f"| `{name}` | {r.model} | {r.dataset} | {image_size(r)[0]} | {r.epochs} | {batch(r)} | "
        f"{optimizer_words(r.optimizer)} | {schedule_words(r.schedule)} |"
        for name, r in paper.RECIPES.items()
    ]
    head = "| recipe | network | data | pixels | epochs | batch | optimiser | schedule |"
    return "\n".join([head, "| --- | --- | --- | ---: | ---: | ---: | --- | --- |", *rows])


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.__name__.split(".")[-1])
def test_docs_recipes_md_has_the_figures_of_every_recipe(paper):
    title, page = paper.__doc__.splitlines()[0].rstrip("."), PAGE.read_text()
    assert f"## {title}\n" in page
    assert f"\n{table(paper)}\n" in page, f"the table must be\n{table(paper)}"


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("vgg16_imagenet", 370_000),  # 1409.1556, sec. 3.1
        ("bn_inception_imagenet", 6_000_000),  # 1502.03167, sec. 4.2.2: BN-x30's best
        ("resnet34_imagenet", 600_000),  # 1512.03385, sec. 3.4
        ("resnet56_cifar10", 64_000),  # 1512.03385, sec. 4.2
        ("googlenet_imagenet", 10_000_000),  # Caffe's bvlc_googlenet, solver.prototxt
        ("squeezenet1_0_imagenet", 170_000),  # twice the 85,000 of 1,024 images of its solver.prototxt
        ("shufflenet_v1_g3_imagenet", 300_000),  # 1707.01083, sec. 4
        ("nasnetalarge_imagenet", 250_000),  # slim's nasnet.py
    ],
)
def test_the_papers_steps_are_these_epochs(name, steps):
    recipe = RECIPES[name]
    epochs = steps * recipe.batch_size / SETS[recipe.dataset][0]
    assert recipe.epochs == pytest.approx(epochs, rel=3e-3)


@pytest.mark.parametrize(
    ("name", "step", "rate"),
    [
        ("alexnet_imagenet", 0, 0.01),
        ("resnet56_cifar10", 0, 0.1),
        ("resnet56_cifar10", 32_000, 0.01),
        ("resnet56_cifar10", 48_000, 0.001),
        ("resnet110_cifar10", 399, 0.01),
        ("resnet110_cifar10", 400, 0.1),
        ("resnet50_one_hour", 0, 0.1),  # of one worker of 256 images; then k = 32 times that
        ("resnet50_one_hour", 5 * 156, 3.2),
        ("resnet50_one_hour", 80 * 156, 0.0032),
        ("googlenet_imagenet", 8 * 40_036, 0.0096),
        ("resnet50_a3", 0, 1e-4),
        ("resnet50_a3", 5 * 625, 8e-3),
        ("resnet50_a3", 100 * 625 - 1, 1e-6),
    ],
)
def test_the_rate_is_the_papers_at_its_turns(name, step, rate):
    made = program(RECIPES[name])
    line = made.timeline
    steps = make_rate(made.config.optimizer, made.config.schedule, line.epochs, line.steps_per_epoch, line.batch_size)
    assert float(steps(step)) == pytest.approx(rate, rel=2e-3)


def test_the_recipes_of_vgg_take_from_net_a_what_the_paper_takes():
    """Four convolutions and three fully connected layers (1409.1556, sec. 3.1), of the same name and shape in D."""
    shallow, deep = (jax.eval_shape(program(RECIPES[f"{name}_imagenet"]).init, 0).params for name in ("vgg11", "vgg16"))

    def kernel(params, layer):
        for name in layer.split("/"):
            params = params[name]
        return params["kernel"].shape

    layers = RECIPES["vgg16_imagenet"].start_layers
    assert len(layers) == 7
    assert [kernel(shallow, layer) for layer in layers] == [kernel(deep, layer) for layer in layers]
