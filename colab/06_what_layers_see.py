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
# # What the layers see
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn_jax/cnn_jax/blob/main/colab/06_what_layers_see.ipynb)
#
# Saliency maps, guided backpropagation, Grad-CAM and the others, on scenes where one knows what a network ought to look
# at. So the maps are not only looked at but measured: how much of a map lies on the object, whether it follows the
# class that was asked for, whether it changes when the weights are drawn anew, whether its pixels matter.
#
# **Runtime**: a CPU is enough; 2 to 3 minutes on 2 cores.

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
# ## A question whose answer is known
# On photographs nobody knows where a network ought to look, so every map looks plausible. Here we do know. A scene is a
# digit of MNIST in a frame of 20x20 pixels, somewhere among twelve pieces of other digits, after Mnih et al. 2014
# (1406.6247, sec. 4.1). Pieces are ink as a digit is, and say nothing of the class. What a map has outside of the frame
# is beside the point.

# %%
import re
import time
from functools import partial

import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Markdown, display
from scipy.stats import spearmanr

from cnn_jax import visualize
from cnn_jax.compilation import jit_once
from cnn_jax.models.resnet_cifar import ResNetCifar

SIDE, DIGIT, PIECE, PIECES = 48, 20, 8, 12  # pixels, but for the last
EMPTY = -1.0  # no ink, as the network sees it
digits = {split: cnn_jax.open_dataset("mnist_5k", split) for split in ("train", "test")}
cut = {split: np.asarray(dataset.images)[:, 4:-4, 4:-4, 0] for split, dataset in digits.items()}  # a digit fills 20x20


def scenes(split, count, seed, several=1):
    """Images (count, 48, 48, 1) in [-1, 1], and labels and frames of their digits, (several, count, ...).

    Frames are (48, 48) bool. Where there are several digits, two, they stand side by side.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(cut[split]), size=(several, count))
    images, frames = np.zeros((count, SIDE, SIDE), np.uint8), np.zeros((several, count, SIDE, SIDE), bool)
    for number, image in enumerate(images):
        for other in rng.integers(len(cut[split]), size=PIECES):
            row, column = rng.integers(DIGIT - PIECE + 1, size=2)
            down, right = rng.integers(SIDE - PIECE + 1, size=2)
            piece = cut[split][other, row : row + PIECE, column : column + PIECE]
            image[down : down + PIECE, right : right + PIECE] = piece
        for place in range(several):
            room = SIDE // several
            down, right = rng.integers(SIDE - DIGIT + 1), place * room + rng.integers(room - DIGIT + 1)
            within = np.s_[down : down + DIGIT, right : right + DIGIT]
            image[within], frames[place, number][within] = cut[split][chosen[place, number]], True
    labels = np.asarray(digits[split].labels)[chosen].astype(np.int32)
    return (images[..., None] / 127.5 - 1).astype(np.float32), labels, frames


def framed(axes, frame, color="#36d7b7"):
    """Draws the border of a frame."""
    rows, columns = np.nonzero(frame)
    corner = columns.min() - 0.5, rows.min() - 0.5
    axes.add_patch(plt.Rectangle(corner, DIGIT, DIGIT, fill=False, edgecolor=color, linewidth=1.2))


COUNT = 4 if SMOKE else 48
images, (labels,), (inside,) = scenes("test", COUNT, seed=10**6)
area = inside.mean()
figure, cells = plt.subplots(1, 6, figsize=(11, 2.2), layout="constrained")
for axes, image, label, frame in zip(cells, images, labels, inside, strict=False):
    axes.imshow(image[:, :, 0], cmap="gray")
    framed(axes, frame)
    axes.set(title=f"the digit is a {label}", xticks=[], yticks=[])
figure.suptitle(f"Six scenes. The frame, {100 * area:.1f} % of the area, is not shown to the network")
plt.show()

# %% [markdown]
# ## A network that finds it
# The residual network of He et al. for small images (1512.03385, sec. 4.2) with one block a stage: 8 layers. Scenes are
# new in each step, of the digits of the training split.

# %%
STEPS, BATCH = (2, 8) if SMOKE else (300, 64)
model = ResNetCifar(1)
drawn = jit_once(lambda key: model.init(key, images[:1], train=False))(jax.random.key(0))
optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))


@jax.jit
def step(variables, state, images, labels):
    """One step of Adam -> (variables, state, loss)."""

    def loss(params):
        logits, moved = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved

    (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    updates, state = optimizer.update(gradient, state)
    return {"params": optax.apply_updates(variables["params"], updates), **moved}, state, value


evaluate = jax.jit(partial(model.apply, train=False))
variables, state, began = drawn, optimizer.init(drawn["params"]), time.perf_counter()
for number in range(1, STEPS + 1):
    batch, (batch_labels,), _ = scenes("train", BATCH, seed=number)
    variables, state, value = step(variables, state, batch, batch_labels)
    if number % 50 == 0 or number == STEPS:
        print(f"step {number}: loss {value:.3f}, {time.perf_counter() - began:.0f} s", flush=True)

MANY = 20 if SMOKE else 500
unseen, (truth,), _ = scenes("test", MANY, seed=10**7)
right = np.concatenate([evaluate(variables, part).argmax(-1) for part in np.array_split(unseen, MANY // 20)]) == truth
print(f"{100 * right.mean():.1f} % of {MANY} scenes with digits it has not seen")

# %% [markdown]
# ## What comes first
# The first filters are the only ones that are in the space of pixels. Behind them a picture of the kernel says little;
# a layer's maps say more. The network is not rewritten for that: activations have names (`extract_features`).

# %%
filters = np.asarray(visualize.first_filters(model, variables, images.shape[1:]))
features = jax.jit(partial(cnn_jax.extract_features, model))(variables, images[:1])
SHOWN = 8
figure, cells = plt.subplots(2, 2 * SHOWN + 1, figsize=(11, 1.9), layout="constrained")
for row, half, layer in zip(cells, np.array_split(filters, 2), ("stage1", "stage3"), strict=True):
    for axes in row:
        axes.axis("off")
    for axes, kernel in zip(row, half, strict=False):
        axes.imshow(kernel[:, :, 0], cmap="gray", vmin=-abs(filters).max(), vmax=abs(filters).max())
    strongest = np.argsort(-np.asarray(features[layer][0]).mean((0, 1)), kind="stable")[:SHOWN]
    for axes, channel in zip(row[SHOWN + 1 :], strongest, strict=True):
        axes.imshow(features[layer][0, :, :, channel])
figure.suptitle("Left: the 16 first filters. Right: the strongest maps of stage1 and stage3 for the first scene")
plt.show()

# %% [markdown]
# ## Eleven ways to ask
# All are pure functions of (model, variables, images, class). Three kinds:
#
# **Gradients.** *Saliency* is the size of the logit's gradient by a pixel (Simonyan 1312.6034, sec. 3.1). *Guided
# backpropagation* lets nothing below zero come back through a ReLU (Springenberg 1412.6806, sec. 3.4). *Integrated
# gradients* are the gradient's mean on the way from a baseline, times that way (Sundararajan 1703.01365, eq. 1). The
# baseline is a choice: grey, as is usual for photographs, or an empty scene.
#
# **Class activation maps.** *Grad-CAM* weighs the last map's channels by their mean gradient (Selvaraju 1610.02391,
# eq. 1 and 2), *Grad-CAM++* so that several objects count alike (Chattopadhay 1710.11063, eq. 19), *Layer-CAM* each
# position by its own gradient, which makes early, fine layers usable (Jiang 2021, eq. 6 to 8).
#
# **Covering.** *Occlusion* moves a square over the image and notes by how much the logit falls (Zeiler & Fergus
# 1311.2901, sec. 4.2). It needs no gradient, and a forward pass for each position.
#
# Then Zeiler and Fergus' *deconvnet* (sec. 2.1), which is of one activation and not of a class, and as a control the
# *edges* of the image, which know nothing of any network.

# %%
POINTS, SQUARE = (2, {"window": 24, "stride": 24}) if SMOKE else (25, {"window": 12, "stride": 4})


def edges(model, variables, images, target):
    """The length of the image's own gradient from pixel to pixel, (B, H, W): no network is asked."""
    down, right = np.gradient(np.asarray(images)[..., 0], axis=(1, 2))
    return np.hypot(down, right)


METHODS = {
    "saliency": visualize.saliency,
    "guided backprop": visualize.guided_backprop,
    "integrated gradients": partial(visualize.integrated_gradients, steps=POINTS),
    "integrated, from empty": partial(visualize.integrated_gradients, baseline=EMPTY, steps=POINTS),
    "occlusion": partial(visualize.occlusion, fill=EMPTY, **SQUARE),
    "Grad-CAM": visualize.gradcam,
    "Grad-CAM++": visualize.gradcam_plus_plus,
    "Layer-CAM": visualize.layercam,
    "Layer-CAM, stage2": partial(visualize.layercam, layer="stage2"),
    "edges (no network)": edges,
}


def maps_of(values, images, labels):
    """Every method's maps, (B, 48, 48) each."""
    return {name: np.asarray(method(model, values, images, labels)) for name, method in METHODS.items()}


began = time.perf_counter()
maps, of_random = maps_of(variables, images, labels), maps_of(drawn, images, labels)
print(f"{len(METHODS)} methods, {len(images)} scenes, two networks: {time.perf_counter() - began:.0f} s")

found = np.flatnonzero(evaluate(variables, images).argmax(-1) == labels)
picked = [0, 1] if SMOKE else found[:5]
pixels = ((images + 1) * 127.5).round().astype(np.uint8)
projected = np.asarray(visualize.deconvnet(model, variables, images, "stage2"))
columns = {"the scene": None, **maps, "deconvnet, stage2": projected, "Grad-CAM, random": of_random["Grad-CAM"]}
columns.pop("Layer-CAM")  # hardly to be told from Grad-CAM++, see below
figure, cells = plt.subplots(len(picked), len(columns), figsize=(13, 1.2 * len(picked) + 0.5), layout="constrained")
for row, number in zip(cells, picked, strict=True):
    for axes, (name, found_maps) in zip(row, columns.items(), strict=True):
        if found_maps is None:
            shown = pixels[number]
        elif name.startswith("deconvnet"):
            shown = visualize.as_picture(found_maps[number])
        else:
            shown = visualize.overlay(pixels[number], found_maps[number])
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
        framed(axes, inside[number])
        axes.set(xticks=[], yticks=[])
        if number == picked[0]:
            axes.set_title("\n".join(re.split(r"(?<=,) | (?=gradients|backprop|\()", name)), fontsize=8)
    row[0].set_ylabel(labels[number], rotation=0, labelpad=8, fontsize=11)
plt.show()

# %% [markdown]
# In integrated gradients and occlusion red speaks for the class and blue against it. Two things that the papers prove
# are checked here: integrated gradients add up to the logit less the baseline's (axiom *completeness*, sec. 3), and
# what a deconvnet brings down lies in the receptive field of its one activation.

# %%
seen = evaluate(variables, images)
for name, baseline in (("integrated gradients", 0.0), ("integrated, from empty", EMPTY)):
    gained = (seen - evaluate(variables, np.full_like(images, baseline)))[np.arange(len(labels)), labels]
    missing = np.abs(maps[name].sum((1, 2)) - gained)
    print(f"{name}: the sums of {POINTS} points miss {missing.mean():.2f} of {np.abs(gained).mean():.2f} on average")

field = 1
for stride, size in reversed([(1, 3), (1, 3), (1, 3), (2, 3), (1, 3)]):  # stem, stage1's two, stage2's two
    field = (field - 1) * stride + size
sides = [max(np.ptp(np.nonzero(one)[axis]) + 1 for axis in (0, 1)) for one in np.abs(projected).sum(-1) if one.any()]
print(f"deconvnet of stage2: {min(sides)} to {max(sides)} pixels wide; the receptive field is {field}")
assert max(sides) <= field

# %% [markdown]
# ## Images made for a class
# Gradient ascent on logit - decay |image|^2, from nothing (Simonyan 1312.6034, eq. 1), rolled by some pixels before
# each step. A far larger logit than any digit's can be had without a digit: the network adds up strokes that it likes,
# wherever they are. That is a finding about the network, not a failure of the method. (Values are cut to those of ink
# and paper for the picture.)

# %%
classes = range(2) if SMOKE else range(10)
made = [
    visualize.activation_maximization(model, variables, digit, images.shape[1:], steps=2 if SMOKE else 200)
    for digit in classes
]
reached, usual = evaluate(variables, jnp.stack(made)), np.asarray(seen)
figure, cells = plt.subplots(1, len(made), figsize=(11, 1.9), layout="constrained")
for axes, image, digit in zip(cells, made, classes, strict=True):
    of_scenes = usual[labels == digit, digit]
    axes.imshow(np.clip(image[:, :, 0], -1, 1), cmap="gray")
    told = f"{of_scenes.mean():.0f}" if len(of_scenes) else "-"
    axes.set_title(f"{digit}: {float(reached[digit, digit]):.0f} for {told}", fontsize=9)
    axes.set(xticks=[], yticks=[])
figure.suptitle("An image made for each digit: its logit, for that of scenes with the digit", fontsize=11)
plt.show()

# %% [markdown]
# ## Does the map lie on the digit?
# The share of a map's sum (of what speaks for the class, where it has a sign) inside of the frame. A map that says
# nothing has the frame's share of the area. The same for the network before it was trained, and for the edges.

# %%


def on_frame(maps, frames):
    """The mean share of what is above zero that lies inside."""
    above = np.maximum(maps, 0)
    return float(np.mean((above * frames).sum((1, 2)) / np.maximum(above.sum((1, 2)), 1e-12)))


share = {name: on_frame(found, inside) for name, found in maps.items()}
share_random = {name: on_frame(found, inside) for name, found in of_random.items()}
bars = np.arange(len(METHODS))
figure, axes = plt.subplots(figsize=(10, 3.6), layout="constrained")
axes.barh(bars - 0.2, [100 * each for each in share.values()], 0.4, label="trained", color="#4c78a8")
axes.barh(bars + 0.2, [100 * each for each in share_random.values()], 0.4, label="random weights", color="#bab0ac")
axes.axvline(100 * area, color="#e45756", linestyle="--", label="the frame's share of the area")
axes.set(yticks=bars, yticklabels=METHODS, xlabel="share of the map inside of the frame (%)")
axes.invert_yaxis()
axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
plt.show()

# %% [markdown]
# ## Does it depend on what was asked?
# Two whole digits side by side, and the map of each class in turn. A map that explains a *class* moves from one to the
# other; Grad-CAM's paper calls that class-discriminative (sec. 1) and denies it to guided backpropagation. The figure:
# of what the map has in both frames, the share in the frame of the digit that was asked for. A half is none.

# %%
pairs, (first, second), (left, right) = scenes("test", COUNT, seed=2 * 10**6, several=2)
asked = {"left": maps_of(variables, pairs, first), "right": maps_of(variables, pairs, second)}


def of_both(name):
    """The mean share of the asked digit's frame in both frames."""
    found = []
    for maps, ours, theirs in ((asked["left"][name], left, right), (asked["right"][name], right, left)):
        above = np.maximum(maps, 0)
        inside_ours, inside_theirs = (above * ours).sum((1, 2)), (above * theirs).sum((1, 2))
        found.append(inside_ours / np.maximum(inside_ours + inside_theirs, 1e-12))
    return float(np.mean(found, axis=0)[first != second].mean())


discriminates = {name: of_both(name) for name in METHODS}
shown = ["saliency", "guided backprop", "occlusion", "Grad-CAM"]
figure, cells = plt.subplots(2, len(shown) + 1, figsize=(9, 3.8), layout="constrained")
scene = ((pairs[1] + 1) * 127.5).round().astype(np.uint8)
for row, side, number in zip(cells, ("left", "right"), (first[1], second[1]), strict=True):
    row[0].imshow(scene, cmap="gray")
    row[0].set_title(f"asked: a {number}?", fontsize=9)
    for axes, name in zip(row[1:], shown, strict=True):
        axes.imshow(visualize.overlay(scene, asked[side][name][1]))
        axes.set_title(name, fontsize=9)
    for axes in row:
        framed(axes, (left if side == "left" else right)[1])
        axes.axis("off")
plt.show()

# %% [markdown]
# ## Does it depend on the network?
# Adebayo et al. (1810.03292, sec. 3): draw the weights anew, from the head down, and compare each map with the trained
# network's by rank correlation of absolute values. A map that stays when the layers that decide are random was not
# about the decision. They found that of guided backpropagation, which does little more than draw edges.

# %%
BELOW = {
    "head": ["head"],
    "+ stage3": ["stage3_block1"],
    "+ stage2": ["stage2_block1"],
    "+ stage1": ["stage1_block1"],
    "+ stem": ["stem"],
}


def alike(maps, others):
    """The mean of the images' rank correlations of absolute values."""
    return float(
        np.mean([spearmanr(abs(a).ravel(), abs(b).ravel()).statistic for a, b in zip(maps, others, strict=True)])
    )


falls, mixed = {name: [1.0] for name in METHODS}, variables
for parts in BELOW.values():
    mixed = {
        kind: values | {part: drawn[kind][part] for part in parts if part in drawn[kind]}
        for kind, values in mixed.items()
    }
    for name, others in maps_of(mixed, images, labels).items():
        falls[name].append(alike(maps[name], others))

figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
for name, fall in falls.items():
    style = {"color": "black", "linestyle": ":"} if name.startswith("edges") else {"marker": "o", "markersize": 4}
    axes.plot(["trained", *BELOW], fall, label=name, linewidth=3 if name == "guided backprop" else 1.5, **style)
axes.set(ylabel="rank correlation with the trained network's map", xlabel="drawn anew, from the head down")
axes.set(title="Adebayo's sanity check: a map of the decision must change")
axes.grid(alpha=0.3)
axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
plt.show()

# %% [markdown]
# ## Do the pixels matter?
# Petsiuk et al. (1806.07421, sec. 4.2): pixels turn grey in the order of the map, and the area under the class's
# probability is noted. If the map is right it falls at once: *deletion*, the lower the better. Or they come back into
# a blurred image: *insertion*, the higher the better. An order that is drawn is the control.

# %%
PARTS = 2 if SMOKE else 16
anyhow = np.random.default_rng(0).random(images.shape[:3])
removed, returned = {}, {}
for name, found in (*maps.items(), ("an order that is drawn", anyhow)):
    of = images, found, labels
    removed[name] = float(visualize.deletion(model, variables, *of, steps=PARTS).mean())
    returned[name] = float(visualize.insertion(model, variables, *of, steps=PARTS).mean())

figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
for (name, x), marker in zip(removed.items(), "osD^vP<>h*x", strict=True):
    axes.scatter(x, returned[name], s=55, marker=marker, label=name, alpha=0.85)
axes.set(xlabel="deletion (left is better)", ylabel="insertion (up is better)", title=f"Over {len(anyhow)} scenes")
axes.grid(alpha=0.3)
axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
plt.show()

# %% [markdown]
# ## All of it

# %%
titles = "in the frame (%)", "the same, random weights", "of two digits, on the one asked for (%)"
titles += "alike, head drawn anew", "and stage3", "all", "deletion", "insertion"
rows = [f"| method | {' | '.join(titles)} |"]
rows.append("| --- |" + " ---: |" * 8)
for name in METHODS:
    figures = f"{100 * share[name]:.0f} | {100 * share_random[name]:.0f} | {100 * discriminates[name]:.0f}"
    changes = " | ".join(f"{falls[name][place]:.2f}" for place in (1, 2, -1))
    rows.append(f"| {name} | {figures} | {changes} | {removed[name]:.3f} | {returned[name]:.3f} |")
chance = "an order that is drawn"
rows.append(
    f"| chance | {100 * area:.0f} | {100 * area:.0f} | 50 | | | 0 | {removed[chance]:.3f} | {returned[chance]:.3f} |"
)
display(Markdown("\n".join(rows)))

# %% [markdown]
# How to read it. The columns do not agree: no single figure says that a map is good.
#
# - A map may lie on the digit because ink does. The edges are the control for that, and they pass more than one column.
# - Integrated gradients from an empty scene are zero where the scene is empty, whatever the weights. So their ranks
#   hardly change when everything is random: that column says nothing of the network there, and occlusion by an empty
#   square shares some of that. From grey they are not zero, and much of the map is about the background, which is not
#   grey. Neither baseline is right; a map without its baseline says little.
# - With head and last stage drawn anew, guided backpropagation is far more alike than saliency, as Adebayo et al.
#   found. But Grad-CAM++ and Layer-CAM hold on for longer still, until the stem goes: they keep only what is positive.
# - Grad-CAM++ and Layer-CAM of the last map are nearly the same here. Behind it comes the mean over all positions, so
#   that a channel's gradient is equal everywhere, and both keep the channels in which it is positive. Grad-CAM keeps
#   the negative ones, too, which speak against the class: see the column of two digits.
# - Zeiler and Fergus, Selvaraju et al. and Adebayo et al. worked on ImageNet with large networks. A network of 8 layers
#   on scenes is a test of methods, not of their figures.
#
# On a photograph: `cnn-jax visualize gradcam PHOTO.jpg --model resnet50.tv_in1k`, with published weights.
#
# ## Exercises
# 1. Give `occlusion` a grey square, `fill=0.0`, as Zeiler and Fergus had it. What happens to its share in the frame and
#    to the column of two digits, and what does a grey square add to a scene that is black?
# 2. Grad-CAM of `layer="stage1"` and `"stage2"`: how does the share in the frame fall, and does Layer-CAM's, too? The
#    bars above have Layer-CAM's of stage2 to compare with.
# 3. Train with labels that are drawn at random, 300 steps on the same 640 scenes (Adebayo's second check). The network
#    learns them by heart or not at all; what is Grad-CAM's share in the frame against the 17 % of the area?
