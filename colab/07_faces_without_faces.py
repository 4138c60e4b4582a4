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
# # Faces without faces
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn_jax/cnn_jax/blob/main/colab/07_faces_without_faces.ipynb)
#
# A door that opens to you has never been trained on you. It embeds: it turns an image into a point, and asks how far
# two points are apart. Here a network of 72,000 parameters learns that from seven kinds of garments, and is asked about
# three others: do these two images show the same? Siamese pairs, FaceNet's triplets and ArcFace, beside bare pixels.
#
# **Runtime**: a CPU is enough; a minute on 2 cores.

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
import tempfile
from functools import cache, partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Image, Markdown, display

from cnn_jax.data.augment import fit, flip, normalize, pad_crop
from cnn_jax.embedding import (
    Embedder,
    arcface_logits,
    contrastive_loss,
    draw_pairs,
    embedding_map,
    nearest_neighbours,
    pair_distances,
    recall_at_k,
    triplet_margin_loss,
    verify,
)
from cnn_jax.layers import BatchNorm
from cnn_jax.visualize import draw_neighbours

# %% [markdown]
# ## Who is at the door
# Trousers, pullovers and sneakers are never trained on: no image of them, and not their names. From all 1,500 of them
# 6,000 pairs are drawn, half of one class and half of two, as many as in the protocol of LFW, the set of faces that
# FaceNet and ArcFace were measured on. A pair is "the same" if its distance is below a threshold.

# %%
UNSEEN = (1, 2, 7)
SEEN = tuple(label for label in range(10) if label not in UNSEEN)
SEEDS, STEPS = (1, 3) if SMOKE else (3, 300)


def garments(split):
    data = cnn_jax.open_dataset("fashion_5k", split)
    rows = slice(None, None, 20 if SMOKE else 1)
    return np.asarray(data.images)[rows], np.asarray(data.labels)[rows], data.classes


train_images, train_labels, NAMES = garments("train")
test_images, test_labels, _ = garments("test")
images, labels = np.concatenate([train_images, test_images]), np.concatenate([train_labels, test_labels])
chosen = np.isin(labels, UNSEEN)
door_images, door_labels = images[chosen], labels[chosen]
known = np.isin(train_labels, SEEN)
train_images, train_labels = train_images[known], np.searchsorted(SEEN, train_labels[known])
pairs, same = draw_pairs(door_labels)
print(
    f"{len(train_images)} images of {len(SEEN)} classes to learn from, {len(pairs)} pairs of {len(door_images)} others"
)

figure, rows = plt.subplots(2, 8, figsize=(9, 2.7), dpi=90, layout="constrained")
for cells, alike, colour in zip(rows, (True, False), ("#1b7837", "#b00020"), strict=True):
    for place, pair in enumerate(pairs[same == alike][:4]):
        for cell, index in zip(cells[2 * place : 2 * place + 2], pair, strict=True):
            cell.imshow(door_images[index, :, :, 0], cmap="gray_r")
            cell.set(xticks=[], yticks=[])
            cell.set_title(NAMES[door_labels[index]], fontsize=8, color=colour)
    cells[0].set_ylabel("same" if alike else "different", color=colour)
plt.show()

# %% [markdown]
# ## Three losses
# Distances d are between vectors of length 1.
#
# **Siamese networks** (Hadsell, Chopra & LeCun 2006, eq. 4) are one network applied to both images of a pair. A same
# pair costs d²/2. A different one costs max(0, m - d)²/2: it is pushed away, but only up to the margin m.
#
# **FaceNet** (Schroff, Kalenichenko & Philbin 2015, 1503.03832, eq. 1) compares instead of measuring: the anchor shall
# be nearer to a positive than to a negative, by alpha = 0.2 in squared distance: max(0, d²(a, p) - d²(a, n) + alpha).
# Most triplets fulfil that soon and teach nothing; the hardest ones are often errors, and can collapse everything to
# one point. So it takes *semi-hard* negatives (sec. 3.2): farther away than the positive, but inside the margin. Not
# "of medium difficulty": of a hard negative, which is nearer than the positive, there is nothing in this loss.
#
# **ArcFace** (Deng et al. 2018, 1801.07698, eq. 3) is a classifier whose weights are directions. Logits are cosines
# times 64, and the angle to the own class counts as if it were 0.5 rad wider. With no margin this is a plain softmax of
# cosines, and it is run here too: what does the margin add?

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.5), dpi=90, layout="constrained")
d = np.linspace(0, 1.6, 100)
left.plot(d, d**2 / 2, label="same pair", color="#1b7837")
left.plot(d, np.maximum(0, 1 - d) ** 2 / 2, label="different pair", color="#b00020")
left.set(title="contrastive, margin 1", xlabel="distance d", ylabel="loss")
left.legend()

positive, margin = 0.75, 0.2  # far enough apart for the eye; the ring is where semi-hard negatives lie
outer = np.sqrt(positive**2 + margin)
middle.set_facecolor("#e8f3e8")
middle.text(-1.15, 1.0, "easy: no loss")
for radius, colour, text in ((outer, "#fde3a7", "semi-hard"), (positive, "#f7c6c5", "hard: not taken")):
    middle.add_patch(plt.Circle((0, 0), radius, color=colour, label=text))
middle.plot(0, 0, "k*", markersize=11)
middle.plot(positive * np.cos(0.6), positive * np.sin(0.6), "o", color="#1b7837", markersize=8)
middle.annotate("anchor", (0, 0), (-0.12, -0.2), ha="center")
middle.annotate("positive", (positive * np.cos(0.6), positive * np.sin(0.6)), (0.62, 0.62))
middle.set(
    title="where a negative may lie", xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), xticks=[], yticks=[], aspect="equal"
)
middle.legend(loc="lower left", fontsize=8)

angle = np.linspace(0, np.pi, 200)
cosines = jnp.asarray(np.cos(angle), jnp.float32)[:, None]
for m in (0.0, 0.5):
    own = arcface_logits(cosines, jnp.zeros(len(angle), jnp.int32), margin=m, scale=64.0)[:, 0]
    right.plot(np.degrees(angle), own, label=f"margin {m} rad")
right.set(
    title="ArcFace: logit of the own class", xlabel="angle to its direction (degrees)", xticks=(0, 45, 90, 135, 180)
)
right.legend()
for axes in (left, right):
    axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## One loop for all
# The network is LeNet-5 in its modern form, with `cnn_jax.embedding.Embedder` behind it: a linear layer to 128 values,
# FaceNet's number, brought to length 1. All losses on pairs need several images of each class in a batch: here 7 x 8,
# drawn anew for each step. (FaceNet: about 40 faces of each person in batches of about 1,800, sec. 3.2.) ArcFace's
# embedding ends in a batch norm, as in its authors' networks, and its seven directions are an auxiliary head that
# exists in training only.

# %%
EACH, DIM, PEAK = 8, 128, 1e-3
STATISTICS = cnn_jax.model_info("lenet5_modern").normalization(1)  # mean and deviation


def inputs(images, key=None):
    """uint8 (B, 28, 28, 1) -> normalised (B, 32, 32, 1); with a key each is mirrored or not, and moved by up to 2."""
    images = fit(images, (32, 32))
    if key is not None:
        key_flip, key_shift = jax.random.split(key)
        images = pad_crop(key_shift, flip(key_flip, images), 2)
    return normalize(images, *STATISTICS)


def softmax(cosines, labels, margin):
    return optax.softmax_cross_entropy_with_integer_labels(arcface_logits(cosines, labels, margin, 64.0), labels).mean()


LOSSES = {  # of embeddings, cosines with the directions, labels
    "contrastive (siamese)": lambda e, c, y: contrastive_loss(e, y, margin=1.0),
    "triplet, semi-hard": lambda e, c, y: triplet_margin_loss(e, y, margin=0.2, mining="semihard"),
    "softmax of cosines": lambda e, c, y: softmax(c, y, 0.0),
    "ArcFace": lambda e, c, y: softmax(c, y, 0.5),
}
DIRECTED = ("softmax of cosines", "ArcFace")


@cache
def network(name):
    backbone = cnn_jax.create_model("lenet5_modern", num_classes=0)
    return Embedder(backbone, DIM, BatchNorm, len(SEEN)) if name in DIRECTED else Embedder(backbone, DIM)


def kinds_of_triplets(embeddings, labels, margin=0.2):
    """Shares of hard, semi-hard and easy among all triplets of a batch."""
    squares = 2 - 2 * embeddings @ embeddings.T
    alike = labels[:, None] == labels[None]
    counted = (alike & ~jnp.eye(len(labels), dtype=bool))[:, :, None] & ~alike[:, None]
    excess = squares[:, :, None] - squares[:, None]  # (anchor, positive, negative)
    kinds = [excess >= 0, (excess < 0) & (excess > -margin), excess <= -margin]
    return jnp.stack([jnp.sum(counted & kind) for kind in kinds]) / counted.sum()


OPTIMIZER = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, PEAK, max(1, STEPS // 15), STEPS), weight_decay=1e-4)


@partial(jax.jit, static_argnums=0)
def step(name, variables, momentum, key, images, labels):
    def objective(params):
        apply = partial(network(name).apply, train=True, mutable=["batch_stats", "aux_logits"])
        embeddings, moved = apply({**variables, "params": params}, inputs(images, key))
        cosines = moved["aux_logits"]["aux_arcface"]["logits"] if name in DIRECTED else None
        return LOSSES[name](embeddings, cosines, labels), (moved.get("batch_stats", {}), embeddings)

    (loss, (stats, embeddings)), grads = jax.value_and_grad(objective, has_aux=True)(variables["params"])
    updates, momentum = OPTIMIZER.update(grads, momentum, variables["params"])
    params = optax.apply_updates(variables["params"], updates)
    return {"params": params, "batch_stats": stats}, momentum, loss, kinds_of_triplets(embeddings, labels)


def fresh(name, seed):
    init = jax.jit(partial(network(name).init, train=False))
    return {"batch_stats": {}, **init(jax.random.key(seed), jnp.zeros((1, 32, 32, 1)))}


def train(name, seed):
    """The trained variables, and of each step the loss and the shares of triplets."""
    variables, rng, told = fresh(name, seed), np.random.default_rng(seed), []
    momentum = OPTIMIZER.init(variables["params"])
    members = [np.flatnonzero(train_labels == label) for label in range(len(SEEN))]
    for t in range(STEPS):
        rows = np.concatenate([rng.choice(each, EACH, replace=False) for each in members])
        key = jax.random.fold_in(jax.random.key(seed), t)
        variables, momentum, loss, kinds = step(name, variables, momentum, key, train_images[rows], train_labels[rows])
        told.append([loss, *kinds])
    return variables, np.array(told)


@partial(jax.jit, static_argnums=0)
def embed_batch(name, variables, images):
    return network(name).apply(variables, inputs(images), train=False)


def embed(name, variables, images):
    parts = [embed_batch(name, variables, images[at : at + 250]) for at in range(0, len(images), 250)]
    return np.concatenate(parts)


# %% [markdown]
# ## What pixels know already
# Garments are centred and lit alike, so the pixels themselves are an embedding, and no bad one. A network that has
# learned nothing is another. Any figure below means something only beside these two.

# %%
embeddings = {"pixels": [door_images.reshape(len(door_images), -1)]}
embeddings["untrained network"] = [
    embed("triplet, semi-hard", fresh("triplet, semi-hard", seed), door_images) for seed in range(SEEDS)
]
for name, several in embeddings.items():
    print(
        f"{name}: {100 * np.mean([verify(e, pairs=pairs, same=same).accuracy for e in several]):.1f} % of pairs right"
    )

# %%
trained, told = {}, {}
for name in LOSSES:
    trained[name], told[name] = zip(*(train(name, seed) for seed in range(SEEDS)), strict=True)
    embeddings[name] = [embed(name, variables, door_images) for variables in trained[name]]
    right = [100 * verify(e, pairs=pairs, same=same).accuracy for e in embeddings[name]]
    print(f"{name}: {np.mean(right):.1f} % of pairs right, by seed {', '.join(f'{r:.1f}' for r in right)}", flush=True)

# %% [markdown]
# ## Triplets run out
# Of the 18,816 triplets of a batch, so many are hard, semi-hard and easy while the semi-hard ones teach. As the easy
# ones grow, the share that teaches shrinks: that is why FaceNet searches for them in batches so large.

# %%
shares = 100 * told["triplet, semi-hard"][0][:, 1:].T
figure, axes = plt.subplots(figsize=(7.5, 3), dpi=90, layout="constrained")
axes.stackplot(
    range(1, STEPS + 1), shares, labels=("hard", "semi-hard", "easy"), colors=("#f7c6c5", "#fdc65a", "#cfe8cf")
)
axes.set(
    xlabel="step", ylabel="share of triplets (%)", xlim=(1, STEPS), ylim=(0, 100), title="what a batch has to teach"
)
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## Same or different?
# The ROC: how many same pairs are accepted at each rate of false acceptance. On a logarithmic axis, since a door that
# opens to every tenth stranger is none. VAL@FAR=0.001 is the height at its left end. Here that end hangs on three of
# 3,000 different pairs: read it with care.

# %%
STYLES = {"pixels": ("0.25", "--"), "untrained network": ("0.6", "--")} | {
    name: (f"C{place}", "-") for place, name in enumerate(LOSSES)
}
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8), dpi=90, layout="constrained")
for name, several in embeddings.items():
    apart = pair_distances(several[0], pairs)
    thresholds = np.sort(apart)
    accepted = np.searchsorted(np.sort(apart[same]), thresholds, "right") / same.sum()
    false = np.searchsorted(np.sort(apart[~same]), thresholds, "right") / (~same).sum()
    left.plot(np.maximum(false, 3e-4), accepted, label=name, color=STYLES[name][0], linestyle=STYLES[name][1])
left.set(xscale="log", xlim=(3e-4, 1), xlabel="different pairs accepted (FAR)", ylabel="same pairs accepted")
left.set_title("ROC, seed 0")
left.axvline(1e-3, color="0.8", zorder=0)
left.legend(fontsize=8)
left.grid(alpha=0.3)

best = embeddings["triplet, semi-hard"][0]
apart, found = pair_distances(best, pairs), verify(best, pairs=pairs, same=same)
for alike, colour, text in ((True, "#1b7837", "same"), (False, "#b00020", "different")):
    right.hist(apart[same == alike], np.linspace(0, 2, 60), color=colour, alpha=0.55, label=text)
right.axvline(found.threshold, color="black", linestyle="--", label=f"threshold {found.threshold:.2f}")
right.set(title="triplet, semi-hard: distances of pairs", xlabel="distance", ylabel="pairs")
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## A map
# The two directions in which embeddings spread most. Grey are test images of the seven classes that were trained on;
# coloured the three that nobody told the network about.

# %%
few = np.flatnonzero(np.isin(test_labels, SEEN))
figure, panels = plt.subplots(1, 3, figsize=(11, 3.9), dpi=90, layout="constrained")
for axes, name in zip(panels, ("pixels", "contrastive (siamese)", "triplet, semi-hard"), strict=True):
    others = (
        test_images[few].reshape(len(few), -1) if name == "pixels" else embed(name, trained[name][0], test_images[few])
    )
    points = embedding_map(np.concatenate([embeddings[name][0], others]).astype(np.float32))
    axes.scatter(*points[len(door_images) :].T, s=5, color="0.8", label="trained on")
    for place, label in enumerate(UNSEEN):
        rows = np.flatnonzero(door_labels == label)
        axes.scatter(*points[rows].T, s=5, alpha=0.5, color=f"C{place}", label=NAMES[label])
    axes.set(title=name, xlabel="first component", aspect="equal", xticks=[], yticks=[])
    axes.set_adjustable("datalim")
panels[0].set_ylabel("second component")
panels[0].legend(fontsize=8, markerscale=2)
plt.show()

# %% [markdown]
# ## Neighbours
# The nearest of all 1,500, with their distances. Of each class the first image, and the first whose nearest neighbour
# is of another class (red), if there is one.

# %%
places, apart = nearest_neighbours(best, min(6, len(best) - 1))
wrong = door_labels[places[:, 0]] != door_labels
queries = []
for label in UNSEEN:
    queries += [*np.flatnonzero(door_labels == label)[:1], *np.flatnonzero((door_labels == label) & wrong)[:1]]
names = [NAMES[label] for label in door_labels]
path = Path(tempfile.mkdtemp()) / "neighbours.png"
draw_neighbours(places, apart, queries, lambda i: door_images[i], names, path, "triplet, semi-hard: nearest neighbours")
display(Image(path.read_bytes(), width=640))

# %% [markdown]
# ## The table
# Mean and standard deviation over seeds, in percent. Accuracy: by the threshold that is best on nine folds, on the
# tenth. Recall@1: how often the nearest neighbour is of the same class.

# %%
COLUMNS = ("accuracy", "val", "auc", "eer")
lines = ["| learned by | accuracy | VAL@FAR=0.001 | AUC | equal error rate | recall@1 |", "| --- |" + " ---: |" * 5]
for name, several in embeddings.items():
    rows = [
        [getattr(verify(e, pairs=pairs, same=same), key) for key in COLUMNS] + [recall_at_k(e, door_labels, (1,))[1]]
        for e in several
    ]
    mean, std = 100 * np.mean(rows, 0), 100 * np.std(rows, 0)
    cells = [f"{m:.1f} ± {s:.1f}" if len(rows) > 1 else f"{m:.1f}" for m, s in zip(mean, std, strict=True)]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
display(Markdown("\n".join(lines)))

# %% [markdown]
# What came out here, beside what the papers say:
#
# - Only the two losses on distances beat bare pixels, and semi-hard triplets do it by more, and with the same result
#   for every seed. A network that has learned nothing throws much of the pixels away.
# - The margin is what makes ArcFace: without it, the softmax of cosines tells the seven classes apart and stays with
#   unknown ones where the untrained network is. With it, ArcFace opens to about as many friends at FAR=0.001 as the
#   triplets do, but its accuracy is not above that of pixels. In its paper ArcFace is better than triplets: there it
#   has thousands of people to find directions for, here seven garments.
# - Recall@1 is highest for pixels and nearly the same for all: of 500 trousers there is always one that looks alike. It
#   cannot tell these embeddings apart; one threshold for all pairs can.
#
# ## Real faces
# FaceNet's figures: VAL@FAR=0.001 87.9 % for NN1 of 140 M parameters, 89.4 % for NN2 of 7.5 M (table 3); 128 values are
# as good as 256 (87.9 and 87.7 %, table 5); on LFW 99.63 ± 0.09 % with alignment, 98.87 ± 0.15 % for the bare centre
# crop. The weights that people call "FaceNet" today are of none of its networks: Inception-ResNet-v1 is not in that
# paper. It is David Sandberg's port, 512 values wide and trained by a softmax, and reaches 99.65 % on LFW (trained on
# VGGFace2). Here it is one line; its file is the one that facenet-pytorch publishes:
#
# ```
# backbone, variables = cnn_jax.load_pretrained("inception_resnet_v1.vggface2", num_classes=0)
# model = Embedder(backbone, dim=None)  # its 512 values, of length 1, for (B, 160, 160, 3) images
# ```
#
# Faces must be cut out and aligned before. One's own photographs are a run of `train.py --recipe embedding`;
# [docs/embedding.md](https://github.com/cnn_jax/cnn_jax/blob/main/docs/embedding.md) has the options, and the harder
# choice of unseen classes: sandals, shirts and bags.

# %% [markdown]
# ## Exercises
# 1. Set `UNSEEN = (5, 6, 8)`: sandals, shirts and bags. Bare pixels fall to about 67 % of pairs (docs/embedding.md).
#    Does any loss pass 85 %? Look at the map before you answer why.
# 2. Replace `mining="semihard"` by `mining="hard"` (Hermans 2017). Print the loss: how far from the margin 0.2 does it
#    get in 300 steps, and what does that say about where the embeddings are?
# 3. Take `DIM = 2`, draw the map without principal components, and measure the accuracy. FaceNet's table 5 goes down to
#    64 values; how few are enough for three classes nobody has seen?
