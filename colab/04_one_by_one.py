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
# # One by one: small convolutions, counted and timed
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn_jax/cnn_jax/blob/main/colab/04_one_by_one.ipynb)
#
# From 2013 to 2017 convolutions were taken apart: into 1x1 and 3x3, into rows and columns, groups and single channels.
# Here each idea is counted against the figures that its paper prints, timed beside the convolution that it replaces,
# and trained on real images. Multiply-accumulates (MACs) are not time: one picture shows by how much.
#
# **Runtime**: a CPU is enough; 3 minutes on 2 cores.

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

# %% [markdown]
# ## Counting
# A convolution of h x w from C to N channels in g groups has `h * w * C / g * N` weights, and each is multiplied once
# for every position of the output. So MACs are weights times positions, and all that a paper claims can be checked by
# building it and asking its structure, abstractly: no weight is drawn.
#
# `Row` is a row of convolutions of the package, one behind another, with a ReLU after each; `structure` counts.

# %%
import time
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Markdown, display

from cnn_jax.compilation import jit_once
from cnn_jax.layers import Conv, ConvBN, Inception, SqueezeExcite, Unit, global_avg_pool, max_pool
from cnn_jax.models.structure import structure


def half(size):
    """The padding in pixels that keeps the image's size, for 3 or (1, 7)."""
    return size // 2 if isinstance(size, int) else tuple((side // 2, side // 2) for side in size)


class Row(nn.Module):
    """(B, H, W, C) -> (B, H, W, N): for each (N, size, groups) a convolution without bias and a ReLU; then a gate."""

    parts: tuple
    gate: bool = False

    @nn.compact
    def __call__(self, x, *, train):
        for features, size, groups in self.parts:
            x = nn.relu(Conv(features, size, padding=half(size), groups=groups, use_bias=False)(x))
        return SqueezeExcite(16, name="se")(x) if self.gate else x


def row(*parts, gate=False):
    """Row((C, 3), (C, 1)): groups are 1 where they are not said."""
    return Row(tuple((*part, 1)[:3] for part in parts), gate)


SIDE, C = (7, 32) if SMOKE else (28, 128)  # the map in and out: SIDE x SIDE x C
# Idea: (channels in, the convolution, what takes its place, the ratio of weights by the paper's formula).
IDEAS = {
    "VGG: three 3x3 for a 7x7": (C, row((C, 7)), row((C, 3), (C, 3), (C, 3)), 27 / 49),
    "Inception v2: two 3x3 for a 5x5": (C, row((C, 5)), row((C, 3), (C, 3)), 18 / 25),
    "Inception v3: 1x7, 7x1 for a 7x7": (C, row((C, 7)), row((C, (1, 7)), (C, (7, 1))), 14 / 49),
    "Inception v2: 1x3, 3x1 for a 3x3": (C, row((C, 3)), row((C, (1, 3)), (C, (3, 1))), 6 / 9),
    "GoogLeNet: 1x1 to C/8 before a 5x5": (C, row((C, 5)), row((C // 8, 1), (C, 5)), 1 / 200 + 1 / 8),
    "ResNet: 1x1, 3x3, 1x1 at C/4": (
        C,
        row((C, 3), (C, 3)),
        row((C // 4, 1), (C // 4, 3), (C, 1)),
        (2 / 4 + 9 / 16) / 18,
    ),
    "ResNeXt: a 3x3 in 32 groups": (C, row((C, 3)), row((C, 3, 32)), 1 / 32),
    "MobileNet: depthwise 3x3, 1x1": (C, row((C, 3)), row((C, 3, C), (C, 1)), 1 / C + 1 / 9),
    "NiN: a 1x1 behind a 3x3": (C, row((C, 3)), row((C, 3), (C, 1)), 10 / 9),
    "SENet: a 3x3 and its gate": (C, row((C, 3)), row((C, 3), gate=True), None),
}
if SMOKE:
    IDEAS = {idea: IDEAS[idea] for idea in list(IDEAS)[2::3] + list(IDEAS)[-1:]}

counts = {}
rows = [
    "| idea | weights of the one | of the other | ratio | by formula | MACs ratio |",
    "|---|---:|---:|---:|---:|---:|",
]
for idea, (channels, whole, parts, formula) in IDEAS.items():
    one, other = counts[idea] = [structure(module, (SIDE, SIDE, channels)) for module in (whole, parts)]
    ratio = other.params / one.params
    assert formula is None or abs(ratio - formula) < 1e-9
    said = "-" if formula is None else f"{formula:.4f}"
    rows.append(f"| {idea} | {one.params:,} | {other.params:,} | {ratio:.4f} | {said} | {other.macs / one.macs:.4f} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# Where the formulas stand, and what is often said of them:
#
# - **VGG** (1409.1556, sec. 2.3): three 3x3 see 7x7 pixels with 27 C² weights in place of 49 C², and two more ReLUs.
#   From this many conclude that VGG has few parameters. It has 138 million, 2.27 times AlexNet's: most are in fc6.
# - **Inception v2 and v3** (1512.00567, sec. 3.1, 3.2): two 3x3 for a 5x5 save 28 %, 1x3 and 3x1 for a 3x3 save 33 %.
# - **GoogLeNet** (1409.4842) puts 1x1 convolutions before the 3x3 and 5x5; the idea of 1x1 is Network in Network's
#   (1312.4400), which puts them behind, as a small network in each position. GoogLeNet has nine *modules*, not "nine
#   sizes of filters": 1x1, 3x3, 5x5, and 7x7 in the stem.
# - **ResNet's bottleneck** (1512.03385, fig. 5): 1x1 to a quarter, 3x3, 1x1 back. It "makes convolutions depthwise
#   separable", one reads. It does not: its 3x3 is a full convolution.
# - **ResNeXt** (1611.05431): the 3x3 in 32 groups, each of which sees its own channels only.
# - **MobileNet** (1704.04861, sec. 3.1): as many groups as channels, then a 1x1 that mixes them: 1/N + 1/9 of the cost.
# - **SENet** (1709.01507, eq. 2 to 4): no convolution is replaced; a gate for each channel, 2 C² / r more weights, and
#   as each is used once an image and not once a position, hardly any MACs.
#
# The whole networks, from the zoo:

# %%
mobile = structure(cnn_jax.create_model("mobilenet_100"), (224, 224, 3))
full_macs = full_params = channels = 0
for layer in mobile.layers:  # each depthwise and 1x1 pair as one full 3x3
    if "depthwise" in layer.path:
        channels = layer.shape[-1]
    elif "pointwise/conv" in layer.path:
        full_macs += 9 * layer.macs
        full_params += 9 * channels * layer.shape[-1]
    elif layer.macs:
        full_macs += layer.macs
        full_params += layer.params
rows = [
    "| network | parameters | million MACs | as printed |",
    "| --- | ---: | ---: | --- |",
    f"| MobileNet with full convolutions | {full_params:,} | {full_macs / 1e6:,.0f} | 29.3 M, 4866 M (table 4) |",
]
PRINTED = {
    "mobilenet_100": "4.2 M, 569 M (table 4)",
    "alexnet": "60 M (sec. 4)",
    "vgg16": "138 M (table 2)",
    "resnet50_v1": "3.8 G (table 1)",
    "resnext50_32x4d": "like ResNet-50's, by design",
    "legacy_seresnet50": "3.87 G, of ResNet-50 3.86 G (table 2)",
}
for name, printed in PRINTED.items():
    card = cnn_jax.model_info(name)
    rows.append(f"| {name} | {card.params:,} | {card.macs / 1e6:,.0f} | {printed} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# ## GoogLeNet's table 1, row by row
# The paper prints parameters and operations of every row. Counted from the network, weights without biases; K is 1,024
# in the parameters' column (the second row proves it), M a million in that of operations.

# %%
PRINTED = {  # table 1: K parameters, M operations
    "conv1": (2.7, 34),
    "conv2": (112, 360),
    "inception_3a": (159, 128),
    "inception_3b": (380, 304),
    "inception_4a": (364, 73),
    "inception_4b": (437, 88),
    "inception_4c": (463, 100),
    "inception_4d": (580, 119),
    "inception_4e": (840, 170),
    "inception_5a": (1072, 54),
    "inception_5b": (1388, 71),
    "head": (1000, 1),
}
googlenet = structure(cnn_jax.create_model("googlenet", aux=False), (224, 224, 3))
weights, operations = dict.fromkeys(PRINTED, 0), dict.fromkeys(PRINTED, 0)
for layer in googlenet.layers:
    block = layer.path.split("/")[0].replace("conv2_reduce", "conv2")
    weights[block] += layer.params - layer.shape[-1]  # less the biases
    operations[block] += layer.macs
assert weights["conv2"] == 112 * 1024
rows = ["| row | K weights | printed | off by | M MACs | printed | off by |", "|---|---:|---:|---:|---:|---:|---:|"]
wrong = []
for block, (params, ops) in PRINTED.items():
    ours = weights[block] / 1024, operations[block] / 1e6
    off = [100 * (printed / counted - 1) for printed, counted in zip((params, ops), ours, strict=True)]
    marks = [f"**{value:+.1f} %**" if abs(value) >= 2.5 else f"{value:+.1f} %" for value in off]
    wrong += [block] if any(mark.startswith("**") for mark in marks) else []
    rows.append(f"| {block} | {ours[0]:,.1f} | {params} | {marks[0]} | {ours[1]:.1f} | {ops} | {marks[1]} |")
display(Markdown("\n".join(rows)))
print(f"off by 2.5 % or more: {', '.join(wrong)}")

# %% [markdown]
# The stem is a known misprint: 7x7 from 3 to 64 channels are 9,408 weights, not 2,700, and the operations follow the
# misprint. 4c has the right operations with a wrong number of parameters; in 5a both are too large by some 5 %. The
# rest is rounding. Caffe's published weights have the channels of the table.
#
# ## MACs are not time
# Each idea again, on this device: forward, 4 images, compiled, medians over rounds in which every module has its turn,
# so that a busy machine is unjust to none. "MACs per value" divides by the numbers that must be read and written,
# weights and maps: where it is small, the device waits for memory and not for arithmetic.

# %%
IMAGES, ROUNDS = (2, 2) if SMOKE else (4, 25)


def prepared(module, channels):
    """A call without arguments that runs the compiled module once and waits for it."""
    x = jax.random.normal(jax.random.key(0), (IMAGES, SIDE, SIDE, channels))
    variables = jit_once(partial(module.init, train=False))(jax.random.key(1), x)
    run = jax.jit(partial(module.apply, train=False))
    run(variables, x).block_until_ready()
    return lambda: run(variables, x).block_until_ready()


def values_moved(module, channels):
    """Numbers that a module reads and writes for IMAGES images if nothing stays in a cache: maps and weights."""
    maps, before = 0, SIDE * SIDE * channels
    counted = structure(module, (SIDE, SIDE, channels))
    for layer in counted.layers:
        maps += before + layer.values
        before = layer.values
    if module.gate:  # its mean reads the map, its product reads and writes it
        maps += 3 * SIDE * SIDE * channels
    return IMAGES * maps + counted.params


calls = {idea: [prepared(module, channels) for module in pair] for idea, (channels, *pair, _) in IDEAS.items()}
seconds = {idea: np.zeros((ROUNDS, 2)) for idea in IDEAS}
for turn in range(ROUNDS):
    for idea, pair in calls.items():
        for place, call in enumerate(pair):
            began = time.perf_counter()
            call()
            seconds[idea][turn, place] = time.perf_counter() - began

head = "| idea | MACs ratio | time ratio | ms, the one | ms, the other | MACs per value, the one | the other |"
rows, points, time_ratios = [head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"], {}, {}
for idea, (channels, whole, parts, _) in IDEAS.items():
    ms = 1e3 * np.median(seconds[idea], 0)
    time_ratios[idea] = np.median(seconds[idea][:, 1] / seconds[idea][:, 0])
    macs = [IMAGES * counted.macs for counted in counts[idea]]
    dense = [count / values_moved(module, channels) for count, module in zip(macs, (whole, parts), strict=True)]
    points[idea] = macs, ms
    rows.append(
        f"| {idea} | {macs[1] / macs[0]:.3f} | {time_ratios[idea]:.3f} | {ms[0]:.2f} | {ms[1]:.2f} "
        f"| {dense[0]:.0f} | {dense[1]:.0f} |"
    )
display(Markdown("\n".join(rows)))

# %%
figure, (axes, bars) = plt.subplots(1, 2, figsize=(12, 4.6), dpi=85, layout="constrained", width_ratios=(1.2, 1))
for number, (idea, (macs, ms)) in enumerate(points.items()):
    colour, drawn = f"C{number}", {"arrowstyle": "->", "color": f"C{number}", "alpha": 0.6}
    axes.annotate("", (macs[1], ms[1]), (macs[0], ms[0]), arrowprops=drawn)
    axes.plot(macs[0], ms[0], "s", color="white", mec="0.2", ms=7, zorder=3)
    axes.plot(macs[1], ms[1], "o", color=colour, ms=8, zorder=4)
    bars.barh(number - 0.2, macs[1] / macs[0], 0.36, color="0.8")
    bars.barh(number + 0.2, time_ratios[idea], 0.36, color=colour)
best = max(macs / ms for pair in points.values() for macs, ms in zip(*pair, strict=True))
lowest, highest = (pick(pick(macs) for macs, _ in points.values()) for pick in (min, max))
for share, style in ((1, "-"), (2, "--"), (4, ":")):
    label = f"{best / share / 1e6:.1f} GMAC/s" + (", the best here" if share == 1 else "")
    ends = np.array([lowest, highest])
    axes.plot(ends, ends / best * share, style, color="0.7", zorder=1, label=label)
axes.set(xscale="log", yscale="log", xlabel=f"multiply-accumulates, {IMAGES} images", ylabel="milliseconds")
axes.set_title("from the full convolution (square) to what takes its place")
axes.legend(fontsize=8, loc="upper left")
bars.set_yticks(range(len(points)), points)
bars.invert_yaxis()
bars.axvline(1, color="0.2", lw=0.8)
bars.set(xscale="log", xlabel="share of the full convolution's", title="MACs (grey) and time (colour)")
for panel in (axes, bars):
    panel.grid(alpha=0.3, which="both")
    panel.set_axisbelow(True)
plt.show()

# %% [markdown]
# An idea whose arrow runs along the lines saves as much time as arithmetic. One that ends on a higher line has saved
# arithmetic and kept the memory traffic, or has become so small that the device cannot fill its units. Depthwise and
# grouped convolutions are the usual case: few MACs for each value that is moved. Other devices draw other pictures; run
# this cell on yours before choosing by MACs.
#
# ## One small network of each
# The same skeleton with each idea in four places: a 3x3 to 16 channels, pool, two blocks of 32 channels, pool, two
# blocks of 64, global average pool (Network in Network's, in place of fully connected layers), linear layer; batch norm
# and ReLU after each convolution. `1x1 alone` is there for comparison: between the pools it sees no neighbours. Every
# network is trained for the same few epochs on the 4,000 garments of `fashion_5k`, by Adam with a falling rate.


# %%
def inception(width):
    """GoogLeNet's module, as fig. 2b has it: four branches, each a quarter of the width, reduced by 1x1 before."""
    quarter, pool = width // 4, partial(max_pool, window=3, stride=1, padding=1)
    return (
        (Unit("one", quarter),),
        (Unit("three_reduce", quarter), Unit("three", quarter, 3)),
        (Unit("five_reduce", quarter // 2), Unit("five", quarter, 5)),
        (pool, Unit("pool_proj", quarter)),
    )


# A block of a width: rows of (features, size, groups), or an Inception module's chains.
BLOCKS = {
    "5x5": lambda w: [(w, 5, 1)],
    "two 3x3": lambda w: [(w, 3, 1), (w, 3, 1)],
    "1x5, 5x1": lambda w: [(w, (1, 5), 1), (w, (5, 1), 1)],
    "3x3": lambda w: [(w, 3, 1)],
    "3x3, gate": lambda w: [(w, 3, 1), "gate"],
    "3x3, 1x1 (NiN)": lambda w: [(w, 3, 1), (w, 1, 1)],
    "inception": inception,
    "3x3, 8 groups": lambda w: [(w, 3, 8)],
    "1x1, 3x3, 1x1": lambda w: [(w // 4, 1, 1), (w // 4, 3, 1), (w, 1, 1)],
    "depthwise, 1x1": lambda w: [(None, 3, None), (w, 1, 1)],  # as many as come in
    "1x1 alone": lambda w: [(w, 1, 1)],
}


class Small(nn.Module):
    """(B, 28, 28, 1) -> (B, 10) logits, with four blocks of one idea."""

    idea: str

    @nn.compact
    def __call__(self, x, *, train):
        x = ConvBN(16, 3, padding=1)(x, train=train)
        for width in (32, 64):
            x = max_pool(x, 2, 2)
            for _ in range(2):
                parts = BLOCKS[self.idea](width)
                if self.idea == "inception":
                    x = Inception(parts)(x, train=train)
                    continue
                for part in parts:
                    if part == "gate":
                        x = SqueezeExcite(16)(x)
                        continue
                    features, size, groups = (x.shape[-1] if value is None else value for value in part)
                    x = ConvBN(features, size, padding=half(size), groups=groups)(x, train=train)
        return nn.Dense(10)(global_avg_pool(x))


train_set, test_set = (cnn_jax.open_dataset("fashion_5k", split) for split in ("train", "test"))
scale = train_set.images.mean() / 255, train_set.images.std() / 255
train_images, test_images = (
    jnp.asarray((data.images / np.float32(255) - scale[0]) / scale[1]) for data in (train_set, test_set)
)
train_labels, test_labels = jnp.asarray(train_set.labels), jnp.asarray(test_set.labels)
if SMOKE:
    BLOCKS = {name: BLOCKS[name] for name in ("3x3, gate", "inception", "depthwise, 1x1")}
    train_images, test_images, test_labels = train_images[:16], test_images[:16], test_labels[:16]
EPOCHS, BATCH, SEEDS = (1, 8, 1) if SMOKE else (4, 64, 2)
STEPS = EPOCHS * (len(train_images) // BATCH)
optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, STEPS))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def step(model, state, images, labels):
    """One step on a batch: (params, batch statistics, optimiser's state), moved."""
    params, stats, moments = state

    def objective(params):
        variables = {"params": params, "batch_stats": stats}
        logits, moved = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved["batch_stats"]

    gradient, stats = jax.grad(objective, has_aux=True)(params)
    updates, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, updates), stats, moments


@partial(jax.jit, static_argnums=0)
def accuracy(model, params, stats):
    logits = model.apply({"params": params, "batch_stats": stats}, test_images, train=False)
    return 100 * (logits.argmax(-1) == test_labels).mean()


def train(model, seed):
    """Test accuracy in percent after the last epoch, and milliseconds of a step, the median."""
    variables = jit_once(partial(model.init, train=False))(jax.random.key(seed), train_images[:1])
    state = variables["params"], variables["batch_stats"], optimizer.init(variables["params"])
    random, took = np.random.default_rng(seed), []
    for _ in range(EPOCHS):
        for chosen in random.permutation(len(train_images))[: STEPS // EPOCHS * BATCH].reshape(-1, BATCH):
            began = time.perf_counter()
            state = step(model, state, train_images[chosen], train_labels[chosen])
            jax.block_until_ready(state)
            took.append(time.perf_counter() - began)
    return float(accuracy(model, *state[:2])), 1e3 * float(np.median(took))


results = {}
for name in BLOCKS:
    scores, times = zip(*(train(Small(name), seed) for seed in range(SEEDS)), strict=True)
    results[name] = structure(Small(name), (28, 28, 1)), scores, min(times)
    print(f"{name}: {', '.join(f'{score:.1f}' for score in scores)} %, {min(times):.0f} ms a step", flush=True)

# %%
figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), dpi=90, layout="constrained", sharey=True)
for panel, what in zip(panels, ("params", "macs"), strict=True):
    for number, (name, (counted, scores, _)) in enumerate(results.items()):
        where, mean = getattr(counted, what), np.mean(scores)
        panel.plot([where] * len(scores), scores, "-", color=f"C{number}", alpha=0.5)
        panel.plot(where, mean, "os^DvP"[number % 6], color=f"C{number}", ms=8, label=name)
    panel.set(xscale="log", xlabel={"params": "parameters", "macs": "multiply-accumulates an image"}[what])
    panel.grid(alpha=0.3, which="both")
panels[0].set_ylabel("test accuracy, %")
panels[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
figure.suptitle(f"Small networks on garments: the mean of {SEEDS} seeds, and from the worst to the best")
plt.show()

heads = " | ".join(f"seed {seed}" for seed in range(SEEDS))
rows = [
    f"| block | parameters | million MACs | ms a step | test accuracy, %: {heads} |",
    "| --- | ---: | ---: | ---: |" + " ---: |" * SEEDS,
]
for name, (counted, scores, ms) in results.items():
    told = " | ".join(f"{score:.1f}" for score in scores)
    rows.append(f"| {name} | {counted.params:,} | {counted.macs / 1e6:.2f} | {ms:.1f} | {told} |")
display(Markdown("\n".join(rows)))
chance = 100 * np.sqrt(0.87 * 0.13 / len(test_labels))
print(f"One figure's standard error is about {chance:.1f} points: read the order of magnitude, not the ranks.")

# %% [markdown]
# What convolutions cost and what they learn part here. Rows and columns, and Inception's branches, keep most of what
# the full kernels reach with a fraction of the weights. The blocks with the fewest MACs lose accuracy at equal width,
# and that is the point of their papers: what is saved is spent on width and depth, which these small networks do not
# have. Groups alone leave channels apart; ResNeXt has 1x1 convolutions on both sides of them, MobileNet one behind. A
# gate's gain on ImageNet is about 1.5 points with 50 layers, which a thousand test images can hardly show.
#
# ## Exercises
# 1. How much of MobileNet's work is in 1x1 convolutions? Sum `layer.macs` of `mobile.layers` with `pointwise` in their
#    path. (94.86 % of the MACs, as table 2 of the paper has it; they are matrix products.)
# 2. ResNet's bottleneck reduces to a quarter. Write the ratio of its weights to those of two full 3x3 as a formula in
#    the factor r, check that r = 4 gives 17/288, and find the r at which it costs a tenth (about 2.9). Then time r = 2.
# 3. Set `IMAGES = 1` and time again; then `C = 512` and `SIDE = 7`, the shape of late layers. Whose time ratio comes
#    nearest to its MACs ratio, and does MobileNet's reach 1/512 + 1/9 = 0.113?
