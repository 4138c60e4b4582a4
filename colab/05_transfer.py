# ---
# jupyter:
#   colab:
#     provenance: []
#   jupytext:
#     notebook_metadata_filter: accelerator,colab
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Transfer learning, four cases
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn_jax/cnn_jax/blob/main/colab/05_transfer.ipynb)
#
# A network has learned one task; there is another one. Which of its layers should be kept, and which trained? The notes
# of Stanford's CS231n answer by a table of four cases: little or much data, a similar or a different task. Here that
# table is an experiment: a small ResNet learns five garments, then moves to five other garments and to digits.
#
# **Runtime**: a CPU is enough; 6 minutes on 2 cores.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("cnn_jax") is None:  # Colab: fetched, with what it needs; JAX stays the one that is there
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", "https://github.com/cnn_jax/cnn_jax"], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--editable", "./cnn_jax[onednn,viz]"], check=True
    )
    sys.path.insert(0, os.path.abspath("cnn_jax"))  # for this kernel, which began before

import jax
import matplotlib.pyplot as plt

import cnn_jax
from cnn_jax.compilation import keep_programs

SMOKE = os.environ.get("CNN_JAX_SMOKE") == "1"  # a test of this notebook: everything small
keep_programs()  # what is compiled once is kept for the next kernel

# %%
print(f"jax {jax.__version__} on {', '.join(device.device_kind for device in jax.devices())}")

# %%
from functools import cache, partial

import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Markdown, display

from cnn_jax.data.augment import pad_crop
from cnn_jax.layers import BatchNorm
from cnn_jax.models.resnet_cifar import ResNetCifar
from cnn_jax.transfer import before, layer_names, linear_probe, norms_in

# %% [markdown]
# ## Three tasks
# The source is five classes of Fashion-MNIST, in the small selection that the package carries. The similar task is the
# five other classes, which the network has never seen. The different one is handwritten digits: the same 28x28 pixels,
# but strokes instead of surfaces. "Few" is 20 training images a class, "many" is all 400.

# %%
FEW, MANY = (4, 8) if SMOKE else (20, 400)
SEEDS = {"few": 1, "many": 1} if SMOKE else {"few": 3, "many": 2}


def load(name, wanted):
    """Training and test images in grey levels of 0 to 1, with labels from 0 on, of the wanted classes."""
    parts = []
    for split in ("train", "test"):
        data = cnn_jax.open_dataset(name, split)
        images, labels = np.asarray(data.images), np.asarray(data.labels)
        rows = np.flatnonzero(np.isin(labels, wanted))[:: 20 if SMOKE else 1]
        parts.append((images[rows].astype(np.float32) / 255, labels[rows] - wanted[0]))
    return parts, [data.classes[label] for label in wanted]


(source_train, source_test), source_names = load("fashion_5k", range(5))
(garments_train, garments_test), garment_names = load("fashion_5k", range(5, 10))
(digits_train, digits_test), digit_names = load("mnist_5k", range(10))
TASKS = {"similar": (garments_train, garments_test, 5), "different": (digits_train, digits_test, 10)}
MEAN, STD = source_train[0].mean(), source_train[0].std()  # the network's own, also for the other tasks


def normal(images):
    return (images - MEAN) / STD


def some(data, count, seed):
    """`count` images of each class, others for each seed."""
    images, labels = data
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(labels == label))[:count] for label in np.unique(labels)]
    rows = np.concatenate(rows)
    return images[rows], labels[rows]


figure, rows = plt.subplots(3, 10, figsize=(9, 3.3), dpi=90, layout="constrained")
for cells, (title, (images, labels), names) in zip(
    rows,
    (
        ("source", source_train, source_names),
        ("similar", garments_train, garment_names),
        ("different", digits_train, digit_names),
    ),
    strict=True,
):
    for place, cell in enumerate(cells):
        label = place % len(names)
        cell.imshow(images[labels == label][place // len(names), :, :, 0], cmap="gray_r")
        cell.set(xticks=[], yticks=[])
        cell.set_title(names[label], fontsize=7)
    cells[0].set_ylabel(title)
plt.show()

# %% [markdown]
# ## One network, one step
# The network is He's for CIFAR-10 (1512.03385, sec. 4.2) with n = 1: 6n + 2 = 8 layers. It has five top-level layers.
# `train_from` trains those from `first` on. For what is before
#
# - there is no gradient: it is not among the parameters that `jax.value_and_grad` sees, so nothing is computed for it;
# - the batch norms are *frozen*: they use the running statistics of the source and do not move them. This is a separate
#   switch, and forgetting it is the most frequent mistake of transfer learning; a section below shows what it costs.

# %%
SHAPE, BATCH = (28, 28, 1), 16 if SMOKE else 64
LAYERS = layer_names(ResNetCifar(1), SHAPE)
print(LAYERS)


@cache
def network(classes, frozen_norms=()):
    """ResNet-8; cached, because jit compiles once for each network object."""
    return ResNetCifar(1, num_classes=classes, norm=partial(BatchNorm, frozen=frozen_norms))


# SGD with Nesterov momentum 0.9 and weight decay 1e-4; the rate comes in at each step.
OPTIMIZER = optax.chain(optax.add_decayed_weights(1e-4), optax.trace(0.9, nesterov=True))


@partial(jax.jit, static_argnums=0)
def step(model, kept, trained, stats, momentum, rate, key, images, labels):
    def objective(trained):
        variables = {"params": {**kept, **trained}, "batch_stats": stats}
        images_moved = normal(pad_crop(key, images, 2))  # by up to 2 pixels; not mirrored, which digits do not survive
        logits, moved = model.apply(variables, images_moved, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved["batch_stats"]

    grads, stats = jax.grad(objective, has_aux=True)(trained)
    updates, momentum = OPTIMIZER.update(grads, momentum, trained)
    return jax.tree.map(lambda p, u: p - rate * u, trained, updates), stats, momentum


def train_from(first, variables, data, classes, peak, steps, seed, freeze_norms=True):
    """Trains the layers from `first` on; the rate warms up over a tenth of the steps, then falls as a cosine."""
    images, labels = data
    fixed = before(LAYERS, first)
    model = network(classes, norms_in(variables, fixed) if freeze_norms else ())
    params, stats = variables["params"], variables["batch_stats"]
    kept = {name: params[name] for name in fixed}
    trained = {name: params[name] for name in params if name not in fixed}
    momentum, rng = OPTIMIZER.init(trained), np.random.default_rng(seed)
    stream = np.concatenate([rng.permutation(len(labels)) for _ in range(-(-steps * BATCH // len(labels)))])
    for t, rows in enumerate(stream[: steps * BATCH].reshape(steps, BATCH)):
        rate = peak * min(1, (t + 1) / (0.1 * steps)) * (1 + np.cos(np.pi * t / steps)) / 2
        key = jax.random.fold_in(jax.random.key(seed), t)
        trained, stats, momentum = step(
            model, kept, trained, stats, momentum, np.float32(rate), key, images[rows], labels[rows]
        )
    return {"params": {**kept, **trained}, "batch_stats": stats}


@partial(jax.jit, static_argnums=0)
def logits_of(model, variables, images):
    return model.apply(variables, images, train=False)


def accuracy(variables, data, classes):
    """Top-1 in percent."""
    images, labels = normal(data[0]), data[1]
    parts = [logits_of(network(classes), variables, images[at : at + 250]) for at in range(0, len(labels), 250)]
    return 100 * float(np.mean(np.concatenate(parts).argmax(1) == labels))


def fresh(classes, seed):
    return jax.jit(partial(network(classes).init, train=False))(jax.random.key(seed), jnp.zeros((1, *SHAPE)))


def with_new_head(variables, classes, seed):
    """All but the head of a network, the head drawn anew: the outputs mean something else now."""
    return {**variables, "params": {**variables["params"], "head": fresh(classes, seed + 100)["params"]["head"]}}


# %% [markdown]
# ## The source task
# One network for each seed.

# %%
SOURCE_STEPS, STEPS = (2, 2) if SMOKE else (300, 200)

sources = []
for seed in range(SEEDS["few"]):
    sources.append(train_from("stem", fresh(5, seed), source_train, 5, 0.05, SOURCE_STEPS, seed))
    print(f"seed {seed}: {accuracy(sources[-1], source_test, 5):.1f} % of the source's test images", flush=True)

# %% [markdown]
# ## Where do features stop to be general?
# A linear probe is a linear classifier on fixed features, found by L-BFGS: no learning rate, half a second. Here it is
# asked of every depth, with few images, beside the same probe on a network that has learned nothing. Maps are averaged
# over a 4x4 grid, so that each depth still knows *where* something is; the last point is what the network's own head
# sees, the mean over the whole map (`cnn_jax.transfer.pooled_features` computes it for any network of the zoo).

# %%
GRID = 4


def grid(x):
    """(B, H, W, C) -> (B, 16 C): means over the cells of a 4x4 grid."""
    size = x.shape[1] // GRID
    x = x[:, : GRID * size, : GRID * size].reshape(len(x), GRID, size, GRID, size, -1)
    return x.mean((2, 4)).reshape(len(x), -1)


DEPTHS = ("pixels", "stem", "stage1", "stage2", "stage3", "stage3, mean")
WIDEST = 16 * 64


@jax.jit
def all_features(variables, images):
    """{depth: (B, WIDEST)}: with zeros behind, which get no weight, so that one probe is compiled for all depths."""
    taps = cnn_jax.extract_features(network(5), variables, images, ["stem", "stage1", "stage2", "stage3"])
    maps = [images, *taps.values()]
    found = [*map(grid, maps), maps[-1].mean((1, 2))]
    return {d: jnp.pad(x, ((0, 0), (0, WIDEST - x.shape[1]))) for d, x in zip(DEPTHS, found, strict=True)}


def features(variables, images):
    parts = [all_features(variables, normal(images[at : at + 100])) for at in range(0, len(images), 100)]
    return {depth: np.concatenate([part[depth] for part in parts]) for depth in DEPTHS}


def probe(train, test, labels, test_labels, classes):
    """Test top-1 in percent of a linear probe on these features."""
    head = linear_probe(train, labels, classes)
    guess = (test @ np.asarray(head["kernel"]) + np.asarray(head["bias"])).argmax(1)
    return 100 * float(np.mean(guess == test_labels))


def probes(variables, train, test, classes, depths=DEPTHS):
    """The same for some depths of a network."""
    seen, unseen = features(variables, train[0]), features(variables, test[0])
    return [probe(seen[depth], unseen[depth], train[1], test[1], classes) for depth in depths]


by_depth = {}
for task, (train, test, classes) in TASKS.items():
    for kind in ("trained", "untrained"):
        networks = sources if kind == "trained" else [fresh(5, seed) for seed in range(len(sources))]
        found = [probes(each, some(train, FEW, seed), test, classes) for seed, each in enumerate(networks)]
        by_depth[task, kind] = np.array(found)
        told = ", ".join(f"{d} {v:.1f}" for d, v in zip(DEPTHS, by_depth[task, kind].mean(0), strict=True))
        print(f"{task}, {kind}: {told}", flush=True)

figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), dpi=90, sharey=True, layout="constrained")
for axes, task in zip(panels, TASKS, strict=True):
    for kind, colour in (("trained", "C0"), ("untrained", "0.6")):
        values = by_depth[task, kind]
        axes.errorbar(
            range(len(DEPTHS)),
            values.mean(0),
            values.std(0),
            color=colour,
            marker="o",
            label=f"{kind} network",
            capsize=3,
        )
    axes.set_xticks(range(len(DEPTHS)), [d.replace(", ", "\n") for d in DEPTHS])
    axes.set(title=f"linear probe, {task} task, {FEW} images a class", xlabel="features of")
    axes.grid(alpha=0.3)
panels[0].set_ylabel("test top-1 (%)")
panels[0].legend()
plt.show()

# %% [markdown]
# ## Four cases, five methods
# What CS231n's notes on transfer learning advise:
#
# | | similar task | different task |
# | --- | --- | --- |
# | **few images** | a linear classifier on the last features | a linear classifier on *earlier* features |
# | **many images** | fine-tune the whole network | could train from scratch; usually still start from the trained one |
#
# The last stage alone is between these: what `train.py --freeze-until stage3` does. All that is trained by steps takes
# as many of them, at the same peak rate of 0.2: of 0.02 to 0.4, tried on seed 0 and its test images, the best one or
# within two points of it for each method and case. (At 0.02, "a small rate for fine-tuning" as one often reads, 200
# steps are too few: digits lost up to 13 points.) The probe on earlier features takes stage2 on the grid: chosen
# beforehand as the last stage but one, not as the best of the picture.

# %%
RATE = 0.2
METHODS = ("from scratch", "probe, last features", "probe, stage2", "last stage", "whole network")


def move(method, source, train, test, classes, seed):
    """Test top-1 in percent on the new task."""
    if method.startswith("probe"):
        depth = "stage2" if "stage2" in method else "stage3, mean"
        return probes(source, train, test, classes, (depth,))[0]
    first = "stage3" if method == "last stage" else "stem"
    begun = fresh(classes, seed + 50) if method == "from scratch" else with_new_head(source, classes, seed)
    return accuracy(train_from(first, begun, train, classes, RATE, STEPS, seed), test, classes)


top1 = {}
for size, count in (("few", FEW), ("many", MANY)):
    for task, (train, test, classes) in TASKS.items():
        for method in METHODS:
            top1[size, task, method] = [
                move(method, sources[seed], some(train, count, seed), test, classes, seed)
                for seed in range(SEEDS[size])
            ]
        told = ", ".join(f"{method} {np.mean(top1[size, task, method]):.1f}" for method in METHODS)
        print(f"{size}, {task}: {told}", flush=True)

# %% [markdown]
# ## What is frozen stays, to the last bit
# A frozen front has a use of its own: the old task is still there. With the old last stage and head kept beside the new
# ones, one network has two tails. The check is equality of all bits, of parameters and of running statistics.

# %%
seed, classes = 0, 10
few_digits = some(digits_train, FEW, seed)
begun = with_new_head(sources[0], classes, seed)
moved = train_from("stage3", begun, few_digits, classes, RATE, STEPS, seed)
whole = train_from("stem", begun, few_digits, classes, RATE, STEPS, seed)


def same_bits(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b))


def part(variables, layer):
    """Parameters and running statistics of a layer."""
    return {kind: values.get(layer) for kind, values in variables.items()}


for layer in LAYERS:
    stays = [
        "same bits" if same_bits(part(begun, layer), part(other, layer)) else "changed" for other in (moved, whole)
    ]
    print(f"{layer:14}  last stage trained: {stays[0]:10}  whole network trained: {stays[1]}")


def old_tail(variables):
    """The front of `variables` before the source's own last stage and head."""
    return {
        kind: {name: (variables if name in before(LAYERS, "stage3") else sources[0])[kind][name] for name in values}
        for kind, values in sources[0].items()
    }


images = normal(source_test[0])
old = logits_of(network(5), sources[0], images)
assert same_bits(old, logits_of(network(5), old_tail(moved), images))
print(f"\nold task before: {accuracy(sources[0], source_test, 5):.1f} %")
print(f"old tail on the frozen front: {accuracy(old_tail(moved), source_test, 5):.1f} %, every logit the same bits")
print(
    f"old tail on the front that was trained as a part of the whole: {accuracy(old_tail(whole), source_test, 5):.1f} %"
)

# %% [markdown]
# ## The mistake: statistics that nobody froze
# Now only the head is trained, twice. Once its norms are frozen, once they run as in any training: with the statistics
# of the batch, while the running ones follow. In both no parameter in front of the head changes by a bit. That is why
# "all my layers have `requires_grad=False`" or "`trainable=False`" sounds safe: running statistics are not parameters.

# %%
head_only = {
    name: train_from("head", begun, few_digits, classes, 0.5, STEPS, seed, freeze_norms=freeze)
    for name, freeze in (("norms frozen", True), ("norms moving", False))
}
drift = {}
for name, variables in head_only.items():
    front = before(LAYERS, "head")
    assert all(same_bits(variables["params"][layer], begun["params"][layer]) for layer in front)
    with_old_head = {**variables, "params": {**variables["params"], "head": sources[0]["params"]["head"]}}
    drift[name] = accuracy(with_old_head, source_test, 5), accuracy(variables, digits_test, classes)
    print(
        f"{name}: old task {drift[name][0]:.1f} %, new task {drift[name][1]:.1f} %, parameters of the front unchanged"
    )

# %% [markdown]
# Moving statistics are not always worse for the *new* task: normalising by the new images is a kind of adaptation. But
# what was kept is no longer what was measured, a probe on features that were computed once is no longer this network's,
# and with small batches the statistics are noise. `train.py --freeze-until` freezes both; `--freeze-norms` keeps all
# statistics while everything is trained.
#
# ## The picture
# Bars are means over seeds, dots the seeds. The thick outline is what CS231n's table advises for that case.

# %%
ADVICE = {
    ("few", "similar"): "probe, last features",
    ("few", "different"): "probe, stage2",
    ("many", "similar"): "whole network",
    ("many", "different"): "whole network",
}
figure, panels = plt.subplots(2, 2, figsize=(9.5, 6), dpi=90, layout="constrained")
for (size, task), axes in zip(ADVICE, panels.ravel(), strict=True):
    values = [top1[size, task, method] for method in METHODS]
    means = [np.mean(v) for v in values]
    for place, method in enumerate(METHODS):
        thick = ADVICE[size, task] == method
        axes.bar(place, means[place], color=f"C{place}", alpha=0.75, edgecolor="black", linewidth=3 if thick else 0)
        axes.plot([place] * SEEDS[size], values[place], "o", color="black", markersize=3)
        axes.text(place, max(values[place]) + 0.4, f"{means[place]:.1f}", ha="center", fontsize=9)
    low = min(map(min, values))
    axes.set_ylim(max(0, low - 4), min(104, max(map(max, values)) + 3))
    axes.set_xticks(range(len(METHODS)), [m.replace(", ", "\n").replace(" ", "\n", 1) for m in METHODS], fontsize=8)
    axes.set(title=f"{size} images ({FEW if size == 'few' else MANY} a class), {task} task", ylabel="test top-1 (%)")
plt.show()

# %% [markdown]
# ## The table

# %%
CASES = list(ADVICE)
lines = [
    "| test top-1 (%) | " + " | ".join(f"{size}, {task}" for size, task in CASES) + " |",
    "| --- |" + " ---: |" * 4,
]
best = {case: max(METHODS, key=lambda method: np.mean(top1[*case, method])) for case in CASES}
for method in METHODS:
    cells = []
    for case in CASES:
        cell = f"{np.mean(top1[*case, method]):.1f} ± {np.std(top1[*case, method]):.1f}"
        cells.append(f"**{cell}**" if best[case] == method else cell)
    lines.append(f"| {method} | " + " | ".join(cells) + " |")
gains = [np.mean(top1[*case, best[case]]) - np.mean(top1[*case, "from scratch"]) for case in CASES]
losses = [np.mean(top1[*case, best[case]]) - np.mean(top1[*case, ADVICE[case]]) for case in CASES]
lines.append("| best over scratch (points) | " + " | ".join(f"{gain:+.1f}" for gain in gains) + " |")
lines.append("| CS231n advises | " + " | ".join(ADVICE[case] for case in CASES) + " |")
lines.append("| best over the advice (points) | " + " | ".join(f"{loss:+.1f}" for loss in losses) + " |")
display(Markdown("\n".join(lines)))

# %% [markdown]
# What to read from it, beside what CS231n says:
#
# - **Earlier features** are the strongest probe in both tasks, not only in the different one: the advice to take the
#   last features when tasks are alike comes from networks that have told a thousand classes apart. This one has told
#   five, and the mean over its last stage holds little else; it has also forgotten where things are, which the grid has
#   not.
# - The picture by depth says how much of that was *learned*: the blue line above the grey one. It is little in the
#   early stages. Most of what a probe finds there, convolutions with drawn weights and a 4x4 grid give as well. Without
#   the grey line one would call all of it transfer.
# - **Fine-tuning** is a start, and what it gains depends on what was seen before. From 2,000 garments it is a few
#   points or none, and digits are learned about as well from nothing ("could train from scratch" is the last case's
#   advice, too). Figures move by one or two points with the seed: with 500 and 1,000 test images, do not read less than
#   that.
#
# ## The same with published weights
# One line each, the first for features or a probe in Python, the others for a run that can be stopped and resumed:
#
# ```
# model, variables = cnn_jax.load_pretrained("resnet50.tv_in1k", num_classes=0)
# ```
#
# ```
# uv run train.py --recipe finetune --model resnet50 --start resnet50.tv_in1k --dataset folder:PHOTOS \
#     --freeze-until head       # or stage4, for the last stage; or in its place, for the whole network,
#                               # --optimizer.layer-decay 0.7: each layer at 0.7 of the rate of the one behind it
# ```
#
# A ResNet-50 that has seen ImageNet's 1.28 million photographs has far more to give than eight layers that have seen
# two thousand garments; [docs/training.md](https://github.com/cnn_jax/cnn_jax/blob/main/docs/training.md) has the table
# of a ResNet-20 with a thousand images a class.

# %% [markdown]
# ## Exercises
# 1. Let the front of the network learn nothing at all: use `fresh(5, s)` as the source of "last stage" and of both
#    probes. What is left of the gain? (The grey line of the second picture is the answer for the probe.)
# 2. Train the whole network with `layer-decay`: multiply each layer's rate by 0.7 for each layer behind it
#    (`cnn_jax.transfer.rate_shares(LAYERS, (), 0.7)` has the factors). Does it beat one rate for all with few images?
# 3. Swap the roles: learn the digits, then move to the five other garments with few images. Compare what the probe on
#    the last features gives with the table's first row: which task is the better teacher?
