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
# # Why depth needed shortcuts
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn_jax/cnn_jax/blob/main/colab/03_depth.ipynb)
#
# He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (1512.03385), begin with a puzzle: a deeper
# network had a higher error on the very images that it was trained on. Here it is seen again, small: plain and residual
# networks of the same layers and the same parameters, the curves of fig. 6, and what the gradients say about the cause.
#
# **Runtime**: a CPU is enough; 5 minutes on 2 cores.

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
# ## The puzzle
# Any deeper network can do what a shallower one does: let the new layers be identities. So its training error should
# not be higher. It was (fig. 1, fig. 6 left), and table 2 has it for ImageNet, top-1 error in percent of ten crops:
#
# | layers | plain | residual |
# | --- | ---: | ---: |
# | 18 | 27.94 | 27.88 |
# | 34 | 28.54 | 25.03 |
#
# This is not overfitting, which would *lower* the training error. A residual block computes `relu(x + F(x))`: to be an
# identity, it has to push F to 0, which is easier than to find an identity out of convolutions (sec. 3.1).
#
# The networks here are those of sec. 4.2 for CIFAR-10: a 3x3 convolution, then three stages of n blocks of two 3x3
# each, 16, 32 and 64 channels wide, and a linear layer; 6n + 2 layers. All shortcuts are option A: where channels are
# added they are zeros. So the plain network has the same parameters, to the last one.

# %%
import time
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Markdown, display

from cnn_jax.compilation import jit_once
from cnn_jax.models.preresnet import PreResNet
from cnn_jax.models.resnet_cifar import ResNetCifar
from cnn_jax.models.structure import structure


def network(depth, kind):
    """Of 6n + 2 layers: "plain", "residual", or "pre-activation" (1603.05027)."""
    n = (depth - 2) // 6
    if kind == "pre-activation":
        return PreResNet((n, n, n), stem="cifar", width=16, num_classes=10)
    return ResNetCifar(n, shortcut="A" if kind == "residual" else "none")


rows = ["| network | parameters | as printed (table 6) | million multiply-adds |", "| --- | ---: | ---: | ---: |"]
printed = {20: "0.27M", 32: "0.46M", 44: "0.66M", 56: "0.85M", 110: "1.7M"}
for depth in (20, 32) if SMOKE else printed:
    plain, residual = (
        structure(cnn_jax.create_model(f"{kind}{depth}_cifar"), (32, 32, 3)) for kind in ("plain", "resnet")
    )
    assert (plain.params, plain.macs) == (residual.params, residual.macs)
    assert network(depth, "residual") == cnn_jax.create_model(f"resnet{depth}_cifar")
    rows.append(f"| {depth} layers, plain or residual | {plain.params:,} | {printed[depth]} | {plain.macs / 1e6:.1f} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# ## Data and one step of training
# The 4,000 training images of `fashion_5k`, halved to 14x14 so that deep networks fit into minutes. The optimiser is
# the paper's (sec. 4.2): momentum 0.9, weight decay 1e-4 (often misread as 1e-5), a rate that falls to a tenth at one
# half and at three quarters of the steps, He's initialisation, batch normalisation, no dropout. Not the paper's:
# batches of 64 rather than 128, no crops or mirrors, some hundred steps instead of 64,000, and for that a first rate of
# 0.02 instead of 0.1, from which so short a run does not recover (exercise 2).


# %%
def garments(split):
    """Images (N, 14, 14, 1) float32, means of 2x2 pixels, and labels (N,)."""
    dataset = cnn_jax.open_dataset("fashion_5k", split)
    images = dataset.images.astype(np.float32) / 255
    return images.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4)), dataset.labels


(train_images, train_labels), (test_images, test_labels) = garments("train"), garments("test")
mean, std = train_images.mean(), train_images.std()
train_images, test_images = (jnp.asarray((images - mean) / std) for images in (train_images, test_images))
train_labels, test_labels = jnp.asarray(train_labels), jnp.asarray(test_labels)
if SMOKE:
    test_images, test_labels = test_images[:20], test_labels[:20]

DEPTHS = (8, 14) if SMOKE else (8, 20, 44)
STEPS, BATCH, SEEDS = (2, 8, 1) if SMOKE else (300, 64, 2)
RATE = 0.02
rate = optax.piecewise_constant_schedule(RATE, {STEPS // 2: 0.1, STEPS * 3 // 4: 0.1})
optimizer = optax.chain(
    optax.add_decayed_weights(1e-4, mask=partial(jax.tree.map, lambda leaf: leaf.ndim > 1)),  # kernels alone
    optax.sgd(rate, momentum=0.9),
)


def objective(params, stats, model, images, labels):
    """Cross entropy on a batch; and the statistics that moved, and the share of images that were wrong."""
    variables = {"params": params, "batch_stats": stats}
    logits, moved = model.apply(variables, images, train=True, mutable=["batch_stats"])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (moved["batch_stats"], (logits.argmax(-1) != labels).mean())


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def step(model, state, images, labels):
    """One step: (params, batch statistics, optimiser's state) -> the same, moved, and the batch's error."""
    params, stats, moments = state
    gradient, (stats, error) = jax.grad(objective, has_aux=True)(params, stats, model, images, labels)
    updates, moments = optimizer.update(gradient, moments, params)
    return (optax.apply_updates(params, updates), stats, moments), error


@partial(jax.jit, static_argnums=0)
def test_error(model, variables):
    logits = model.apply(variables, test_images, train=False)
    return 100 * (logits.argmax(-1) != test_labels).mean()


def start(model, seed):
    return jit_once(partial(model.init, train=False))(jax.random.key(seed), train_images[:1])


def train(model, seed):
    """The trained variables, and the training error of each step in percent, on its batch before the step."""
    variables = start(model, seed)
    state = variables["params"], variables["batch_stats"], optimizer.init(variables["params"])
    random = np.random.default_rng(seed)  # the same batches for every network
    order = np.concatenate([random.permutation(len(train_labels)) for _ in range(1 + STEPS * BATCH // 4000)])
    errors = []
    for chosen in order[: STEPS * BATCH].reshape(STEPS, BATCH):
        state, error = step(model, state, train_images[chosen], train_labels[chosen])
        errors.append(error)
    return {"params": state[0], "batch_stats": state[1]}, 100 * np.array(errors)


# %% [markdown]
# ## Deeper, plain and residual
# Every network sees the same batches in the same order. The pre-activation network of He et al., "Identity Mappings in
# Deep Residual Networks" (1603.05027), moves norm and ReLU before the convolutions, so that nothing stands on the
# shortcut: it is trained at the largest depth. (That it "does not pool" is a legend: it ends in average pooling like
# the others, and on ImageNet it keeps the max pool too.)

# %%
KINDS = {"plain": "C3", "residual": "C0", "pre-activation": "C2"}
SHOWN = slice(-max(1, STEPS // 5), None)  # the last fifth of the steps

trained, curves, tested = {}, {}, {}
for depth in DEPTHS:
    for kind in KINDS:
        if kind == "pre-activation" and depth < DEPTHS[-1]:
            continue
        for seed in range(SEEDS):
            model, began = network(depth, kind), time.perf_counter()
            run = depth, kind, seed
            trained[run], curves[run] = train(model, seed)
            tested[run] = float(test_error(model, trained[run]))
            print(
                f"{depth:2} layers, {kind}, seed {seed}: training error {curves[run][SHOWN].mean():.1f} %, "
                f"test {tested[run]:.1f} %, {time.perf_counter() - began:.0f} s",
                flush=True,
            )


# %%
def averaged(values, width):
    """Means of `width` steps in a row."""
    return np.convolve(values, np.ones(width) / width, "valid")


WINDOW = max(1, STEPS // 12)
last = {run: curve[SHOWN].mean() for run, curve in curves.items()}
figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), dpi=90, layout="constrained")
for panel, kinds in zip(panels, (("plain",), ("residual", "pre-activation")), strict=False):
    for kind in kinds:
        for depth, colour in zip(DEPTHS, ("0.6", "C1", "C3"), strict=False):
            runs = [curves[run] for run in curves if run[:2] == (depth, kind)]
            for number, curve in enumerate(runs):
                dashed = kind == "pre-activation"
                label = f"{depth} layers" + dashed * ", pre-activation"
                values = averaged(curve, WINDOW)
                panel.plot(
                    np.arange(len(values)) + WINDOW,
                    values,
                    color=colour,
                    ls="--" if dashed else "-",
                    lw=1.4,
                    label=label if number == 0 else None,
                )
    panel.set(title=kinds[0], xlabel="step", ylabel=f"training error, %, mean of {WINDOW} steps", ylim=(0, 92))
    panel.grid(alpha=0.3)
    panel.legend()
for kind, colour in KINDS.items():
    places = [depth for depth in DEPTHS if (depth, kind, 0) in last]
    panels[2].plot(
        places,
        [np.mean([last[depth, kind, seed] for seed in range(SEEDS)]) for depth in places],
        "-" if len(places) > 1 else "",
        color=colour,
    )
    for seed in range(SEEDS):
        label = kind if seed == 0 else None
        panels[2].plot(places, [last[depth, kind, seed] for depth in places], "o", color=colour, label=label)
panels[2].set(title="error against depth", xlabel="layers", ylabel="training error at the end, %", xticks=DEPTHS)
panels[2].set_ylim(bottom=0)
panels[2].grid(alpha=0.3)
panels[2].legend()
plt.show()


def rise(kind):
    """How much the training error rises from the least depth to the largest, one figure for each seed."""
    return [last[DEPTHS[-1], kind, seed] - last[DEPTHS[0], kind, seed] for seed in range(SEEDS)]


for kind in ("plain", "residual"):
    told = ", ".join(f"{points:+.1f}" for points in rise(kind))
    print(f"{kind}: from {DEPTHS[0]} to {DEPTHS[-1]} layers the training error changes by {told} points (seed by seed)")
worse = sum(points > 0 for points in rise("plain"))
helped = sum(last[DEPTHS[-1], "residual", seed] < last[DEPTHS[-1], "plain", seed] for seed in range(SEEDS))
verdict = "degradation" if worse == SEEDS else "no degradation that would stand against chance"
print(f"The deeper plain network is the worse one in {worse} of {SEEDS} seeds: {verdict}.")
print(f"At {DEPTHS[-1]} layers the residual network is the better one in {helped} of {SEEDS} seeds.")

# %% [markdown]
# ## Is it vanishing gradients?
# That is what one often reads. The paper says otherwise: with batch normalisation in every layer the difficulty is
# "unlikely to be caused by vanishing gradients"; forward signals keep their variance, and backward gradients had
# "healthy norms" (sec. 4.1). It leaves the cause open.
#
# Below: by what share of its length would the first step, at the rate above, change each kernel? In a plain network
# with batch normalisation gradients at the start do not vanish towards the image: they grow, exponentially in depth,
# as Yang et al. (1902.08129) derive, and batch normalisation itself is the cause. Whoever takes the rate that suits the
# last layers throws the first ones about. And that lasts: a kernel before a batch norm has no scale of its own, so a
# step that is too large makes it longer, and every later step moves it less. The lengths are printed, too.


# %%
@partial(jax.jit, static_argnums=0)
def gradient_of(model, variables, images, labels):
    return jax.grad(objective, has_aux=True)(variables["params"], variables["batch_stats"], model, images, labels)[0]


def share_moved(model, variables, images=128):
    """For each convolution, from the image on: rate * |gradient| / |kernel|, and |kernel|."""
    gradient = gradient_of(model, variables, train_images[:images], train_labels[:images])
    shares, lengths = [], []
    for layer in structure(model, (14, 14, 1)).layers:
        if layer.kind == "Conv" and "project" not in layer.path:
            kernel, slope = variables["params"], gradient
            for part in layer.path.split("/"):
                kernel, slope = kernel[part], slope[part]
            lengths.append(np.linalg.norm(kernel["kernel"]))
            shares.append(RATE * np.linalg.norm(slope["kernel"]) / lengths[-1])
    return np.array(shares), np.array(lengths)


DEEPEST, WHEN = DEPTHS[-1], ("before the first step", f"after {STEPS} steps")
lengths = {}
figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), dpi=90, layout="constrained", sharey=True)
for panel, when in zip(panels, WHEN, strict=True):
    for kind, colour in KINDS.items():
        model = network(DEEPEST, kind)
        variables = start(model, 0) if panel is panels[0] else trained[DEEPEST, kind, 0]
        shares, lengths[kind, when] = share_moved(model, variables, 8 if SMOKE else 128)
        panel.semilogy(np.arange(1, len(shares) + 1), shares, "o-", ms=3, lw=1, color=colour, label=kind)
        quarter = len(shares) // 4
        more = shares[:quarter].mean() / shares[-quarter:].mean()
        print(f"{kind}, {when}: the first quarter of the layers is moved {more:.2f} times as much as the last quarter")
    panel.set(title=f"{DEEPEST} layers, {when}", xlabel="convolution, 1 is next to the image")
    panel.grid(alpha=0.3)
panels[0].set_ylabel("rate * |gradient| / |kernel|")
panels[0].legend()
plt.show()
for kind in KINDS:
    before, after = (lengths[kind, when][: len(shares) // 4] for when in WHEN)
    print(f"{kind}: kernels of the first quarter are {np.median(after / before):.1f} times as long after training")

# %% [markdown]
# ## What a shortcut makes of a block
# Veit, Wilber and Belongie (1605.06431, sec. 4.1) took trained networks and deleted one layer at a time. In a plain
# network the rest then gets what it never saw. In a residual one the shortcut still carries what the blocks before have
# found: the block was a correction. Here each block of equal shapes is deleted once from the networks of 20 layers; a
# Flax interceptor gives back the block's input, so no layer is rewritten. (VGG, their plain network, had no batch
# normalisation; ours has.)


# %%
@partial(jax.jit, static_argnums=0)
def error_without(model, variables, missing):
    """Test error in percent with the block of that number skipped; -1 skips none. Blocks that change shape stay."""
    blocks = []

    def skip(call, args, kwargs, context):
        name = context.module.name or ""
        if not (name.startswith("stage") and context.method_name == "__call__"):
            return call(*args, **kwargs)
        output = call(*args, **kwargs)
        if output.shape != args[0].shape:
            return output
        blocks.append(name)
        return jnp.where(missing == len(blocks) - 1, args[0], output)

    with nn.intercept_methods(skip):
        logits = model.apply(variables, test_images, train=False)
    return 100 * (logits.argmax(-1) != test_labels).mean()


MIDDLE = DEPTHS[1]
names = [f"{i}.{j}" for i in (1, 2, 3) for j in range(1, (MIDDLE - 2) // 6 + 1) if i == 1 or j > 1]
figure, axes = plt.subplots(figsize=(9, 3.2), dpi=90, layout="constrained")
deleted = {}
for place, (kind, colour) in enumerate((("plain", "C3"), ("residual", "C0"))):
    model, variables = network(MIDDLE, kind), trained[MIDDLE, kind, 0]
    deleted[kind] = [float(error_without(model, variables, number)) for number in range(len(names))]
    positions = np.arange(len(names)) + 0.4 * (place - 0.5)
    axes.bar(positions, deleted[kind], 0.38, color=colour, label=f"{kind}, one block deleted")
    axes.axhline(tested[MIDDLE, kind, 0], color=colour, ls=":", label=f"{kind}, whole")
axes.set_xticks(range(len(names)), names)
axes.set(xlabel="deleted block: stage.number", ylabel="test error, %", ylim=(0, 100), axisbelow=True)
axes.grid(alpha=0.3, axis="y")
axes.set_title(f"{MIDDLE} layers: what one block is worth")
axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
plt.show()
print(", ".join(f"{kind}: {np.median(errors):.0f} % in the median" for kind, errors in deleted.items()))

# %% [markdown]
# ## What goes over the shortcut where the shape changes
# Sec. 3.3 and table 3 compare three ways for ResNet-34 on ImageNet: A zeros for the new channels, B a 1x1 projection
# where the shape changes, C projections everywhere. They differ little (errors of ten crops, in percent, top-1 / top-5:
# A 25.03 / 7.76, B 24.52 / 7.46, C 24.19 / 7.40; plain 28.54 / 10.02), so projections "are not essential for addressing
# the degradation problem"; the paper's deeper networks have B, those for CIFAR-10 A. What each costs is counted here.

# %%
printed = {"none": "28.54", "A": "25.03", "B": "24.52", "C": "24.19"}  # table 3
rows = [
    "| shortcuts of ResNet-34 | parameters | G multiply-adds | top-1 error, table 3 |",
    "| --- | ---: | ---: | ---: |",
]
base = structure(cnn_jax.create_model("plain34"), (224, 224, 3))
for kind, error in printed.items():
    made = structure(cnn_jax.create_model("resnet34", shortcut=kind), (224, 224, 3))
    more = f" (+{100 * (made.params / base.params - 1):.1f} %)" if made.params > base.params else ""
    rows.append(f"| {kind} | {made.params:,}{more} | {made.macs / 1e9:.2f} | {error} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# ## All results
# Training error is the mean over the last fifth of the steps, on each batch before its step, as in fig. 6; the test
# error is of 1,000 other images, with running statistics. A column for each seed.

# %%
heads = [f"{what}, seed {seed}" for what in ("training error, %", "test error, %") for seed in range(SEEDS)]
rows = [
    "| layers | shortcuts | parameters | " + " | ".join(heads) + " |",
    "| ---: | --- |" + " ---: |" * (1 + len(heads)),
]
for depth, kind in dict.fromkeys(run[:2] for run in curves):
    params = structure(network(depth, kind), (14, 14, 1)).params
    values = [kept[depth, kind, seed] for kept in (last, tested) for seed in range(SEEDS)]
    rows.append(f"| {depth} | {kind} | {params:,} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# He et al. trained 64,000 steps: there the residual networks of table 6 get *better* with depth, from 8.75 % of test
# error with 20 layers to 6.43 % with 110, and worse again with 1,202 (7.93 %), which the paper puts down to
# overfitting. In some hundred steps the other half of the puzzle is clear already: plain networks pay for depth with
# their training error, and shortcuts without a single parameter give it back. Whether a residual network of 44 layers
# is better than one of 20 such a run cannot say, nor what pre-activation is worth: the paper's gain with 110 layers is
# 6.61 % to 6.37 %, and only with 1,001 large (7.61 % to 4.92 %; 1603.05027, tables 3 and 4).
#
# ## Exercises
# 1. Write down the parameters of `network(6 * n + 2, "residual")` for a colour image as a formula in n (each batch norm
#    has two a channel), and check it against the table at the top: 269,722 for n = 3 and 1,727,962 for n = 18.
# 2. Set `RATE = 0.1`, the paper's. Which networks get worse, and which do not? (We saw about 50 % of training error for
#    the plain network of 44 layers and 30 % for the residual one, in 400 steps.) With 110 layers the paper begins at
#    0.01 and goes to 0.1 when the training error is below 80 % (sec. 4.2): do the same for a fifth of the steps, by
#    `optax.join_schedules`. (The residual network of 44 layers then came to 19 %.)
# 3. `ResNetCifar(3, shortcut="B")` projects in the first blocks of stages 2 and 3. How many parameters are added?
#    (Two 1x1 convolutions and their batch norms: 272,474 in all on a colour image.) Then delete its blocks, too: does
#    the picture change?
