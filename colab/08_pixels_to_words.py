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
# # From pixels to words
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn_jax/cnn_jax/blob/main/colab/08_pixels_to_words.ipynb)
#
# A network looks, an LSTM tells: "a sneaker to the left of a seven". Show and Tell (Vinyals et al. 2014, 1411.4555) is
# given the image once; Show, Attend and Tell (Xu et al. 2015, 1502.03044) looks at a part of it for every word. Both
# are trained here on scenes whose compositions never recur in the test, beside an LSTM that sees no image.
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

# %%
import tempfile
from functools import cache, partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Image, Markdown, display

from cnn_jax.captioning import (
    END,
    PAD,
    Captioner,
    beam_search,
    can_score,
    caption_loss,
    caption_scores,
    exact_match,
    search,
    sentence,
)
from cnn_jax.data import fashion_5k, mnist_5k
from cnn_jax.data.augment import pad_crop, random_affine
from cnn_jax.data.composed import DIGITS, GARMENTS, RELATIONS
from cnn_jax.visualize import draw_attention, draw_captions

# %% [markdown]
# ## Scenes
# `composed_captions`: a real garment and a real digit, one beside or above the other, and the two sentences that say
# so. Of 240 compositions (garment, digit, relation) 48 are kept for the test; so are the garments and digits
# themselves. No sentence of the test is one of training's: a network that has learned sentences by heart gets none
# right.
#
# A sentence is a row of numbers, its end (2) behind the last word, 0 behind that.

# %%
TRAIN, TEST = (64, 32) if SMOKE else (8_000, 1_000)
train = cnn_jax.open_dataset("composed_captions", f"train[:{TRAIN}]")
test = cnn_jax.open_dataset("composed_captions", f"test[:{TEST}]")
WORDS, LENGTH = train.classes, train.label_shape[1]
print(f"{len(train)} and {len(test)} scenes {train.shape}, {len(WORDS)} words: {' '.join(WORDS)}")
print(test.labels[0, 0], "is:", sentence(test.labels[0, 0], WORDS))


def references(label):
    return [sentence(row, WORDS, reference=True) for row in label if row[0] != PAD]


figure, cells = plt.subplots(1, 4, figsize=(10, 2.9), dpi=90, layout="constrained")
for cell, image, label in zip(cells, train.images, train.labels, strict=False):
    cell.imshow(image[:, :, 0], cmap="gray")
    cell.set(xticks=[], yticks=[])
    cell.set_title("\n".join(references(label)), fontsize=8)
plt.show()

# %% [markdown]
# ## First a classifier
# In both papers the network that looks is a classifier first, trained on ImageNet. Here it is a narrow ResNet-18 that
# learns single things: the six garments and ten digits of the scenes, from the training images alone.

# %%
BATCH = 16 if SMOKE else 64
THINGS_EPOCHS, FIXED_EPOCHS, EPOCHS = (1, 1, 1) if SMOKE else (12, 5, 5)
NETWORK = {"width": 24, "stem_width": 32}
MEAN, STD = 0.2, 0.35  # about those of garments and digits


def normal(images):
    return (images.astype(jnp.float32) / 255 - MEAN) / STD


def moved(key, images, pad):
    """Each a little turned, sheared, larger or smaller, and shifted. Not mirrored: left would be right."""
    key_affine, key_crop = jax.random.split(key)
    images = random_affine(key_affine, images, rotate=10.0, scale=0.1, shear=0.1)
    return pad_crop(key_crop, images, pad)


def things(split):
    """Garments and digits of the scenes, one by one in the middle of 32x32, as sixteen classes."""
    (garments, kinds), (digits, numbers) = fashion_5k.read_split(split), mnist_5k.read_split(split)
    rows = np.isin(kinds, [*GARMENTS])
    labels = np.concatenate([np.searchsorted([*GARMENTS], kinds[rows]), numbers + len(GARMENTS)])
    return np.pad(np.concatenate([garments[rows], digits]), ((0, 0), (2, 2), (2, 2), (0, 0))), labels


def optimizer(peak, steps):
    """AdamW with a cosine after a warm-up; Adam is what Xu et al. found best for some sets (sec. 4.3)."""
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, max(1, steps // 10), steps)
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(rate, weight_decay=0.02))


def learn(name, loss, variables, images, labels, peak, epochs, after=None, only=None):
    """Minimises `loss(variables, key, images, labels) -> (value, batch_stats)`; a line for each epoch.

    `only` is the one layer that is trained; all of them if None.
    """
    steps = len(images) // BATCH
    tx = optimizer(peak, epochs * steps)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(variables, state, key, images, labels):
        params = variables["params"]
        moving = {layer: params[layer] for layer in params if only in (None, layer)}
        objective = lambda moving: loss({**variables, "params": {**params, **moving}}, key, images, labels)  # noqa: E731
        (value, stats), grads = jax.value_and_grad(objective, has_aux=True)(moving)
        updates, state = tx.update(grads, state, moving)
        return {"params": {**params, **optax.apply_updates(moving, updates)}, "batch_stats": stats}, state, value

    variables = jax.tree.map(jnp.array, variables)  # a copy, since the step gives away what it was given
    state = tx.init({layer: params for layer, params in variables["params"].items() if only in (None, layer)})
    rng, told = np.random.default_rng(0), []
    for epoch in range(epochs):
        total = 0.0
        for t, rows in enumerate(rng.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH)):
            key = jax.random.fold_in(jax.random.key(0), epoch * steps + t)
            variables, state, value = step(variables, state, key, images[rows], labels[rows])
            total += value
        told.append((float(total) / steps, after(variables) if after else np.nan))
        more = f", {100 * told[-1][1]:.1f} % of the test right" if after else ""
        print(f"{name}, epoch {epoch + 1} of {epochs}: loss {told[-1][0]:.3f}{more}", flush=True)
    return variables, told


classifier = cnn_jax.create_model("resnet18", num_classes=len(GARMENTS) + 10, **NETWORK)
things_train, things_test = things("train"), things("test")
if SMOKE:
    things_train, things_test = ([x[::100] for x in part] for part in (things_train, things_test))


def thing_loss(variables, key, images, labels):
    images = normal(moved(key, images, 3))
    logits, changed = classifier.apply(variables, images, train=True, mutable=["batch_stats"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed["batch_stats"]


@jax.jit
def classify(variables, images):
    return classifier.apply(variables, normal(images), train=False).argmax(-1)


def thing_accuracy(variables):
    images, labels = things_test
    guess = np.concatenate([classify(variables, images[at : at + 200]) for at in range(0, len(images), 200)])
    return float(np.mean(guess == labels))


begun = jax.jit(partial(classifier.init, train=False))(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
looking, _ = learn("things", thing_loss, begun, *things_train, 3e-3, THINGS_EPOCHS, thing_accuracy)

# %% [markdown]
# ## Teacher forcing
# The LSTM learns to say the next word from the words before it: from those of the *true* sentence, not from its own. So
# all words of a sentence are learned at once, and its loss is the mean over words of -log p(word | true words before,
# image) (1411.4555, eq. 13, which sums). In use there is no teacher: what it has said is what it goes on from.
#
# The table shows what is put in and what shall come out. Both reference sentences of a scene are learned in one step.

# %%
shown = [WORDS[token] for token in test.labels[0, 0] if token != PAD]
display(
    Markdown(
        "\n".join(
            [
                "| step | " + " | ".join(str(1 + place) for place in range(len(shown))) + " |",
                "| --- |" + " --- |" * len(shown),
                "| put in | " + " | ".join(f"`{word}`" for word in ["<start>", *shown[:-1]]) + " |",
                "| shall come out | " + " | ".join(f"`{word}`" for word in shown) + " |",
            ]
        )
    )
)

# %% [markdown]
# ## Two decoders
# **Show and Tell** (eq. 10-12): the image, as one vector, is the LSTM's first input, before `<start>`; never again,
# since looking at each step made it overfit (sec. 3.1). **Soft attention** (1502.03044, sec. 3.1.2 and 4.2): before
# each word the LSTM's state asks each position of a map, here 4x4, how much it matters; the softmax of the answers
# weights their mean, and that goes in with the word. All is differentiable, so nobody tells it where to look.
#
# `Captioner` puts either behind any network of the zoo. The classifier's layers keep their names, so its variables go
# in by name. As in both papers the network is fixed while the decoder is new (`train.py --freeze-until decoder`), and
# only then everything is trained: a decoder that knows nothing yet sends gradients that spoil what was learned.
# (Without that, Show and Tell named one garment in three and digits by chance after six epochs.)

# %%
DECODERS = {"Show and Tell": False, "soft attention": True}


@cache
def captioner(name):
    attention = DECODERS[name]
    return Captioner(
        cnn_jax.create_model("resnet18", num_classes=0, **NETWORK),
        vocabulary=len(WORDS),
        width=128,
        embedding=128,
        attention=attention,
        look_at="stage3" if attention else None,
        dropout=0.2,
    )


def with_eyes(variables):
    """Fresh variables of a captioner, with all layers that the classifier has learned."""
    params = {**variables["params"], **{n: v for n, v in looking["params"].items() if n in variables["params"]}}
    return {"params": params, "batch_stats": looking["batch_stats"]}


@cache
def finder(name, beam):
    """The compiled search; greedy is a beam of one."""
    return jax.jit(partial(beam_search, captioner(name), length=LENGTH, beam=beam))


def say(name, beam, variables, images):
    """What a captioner says of images, tokens (N, T), and where it looked, (N, T, 4, 4) or None."""
    found = [finder(name, beam)(variables, normal(images[at : at + 100])) for at in range(0, len(images), 100)]
    looks = None if found[0].attention is None else np.concatenate([each.attention for each in found])
    return np.concatenate([each.tokens for each in found]), looks


def train_captioner(name):
    model = captioner(name)

    def fixed(model, images, tokens):
        """What is said in training of a network that is not in training: its statistics stay as well."""
        return model.read(model.begin(images, train=False), tokens, train=True)

    def loss(variables, key, images, tokens, method=None):
        key_move, key_drop = jax.random.split(key)
        seen, rngs = normal(moved(key_move, images, 4)), {"dropout": key_drop}
        if method is not None:
            logits, changed = model.apply(variables, seen, tokens, rngs=rngs, method=method), variables
        else:
            logits, changed = model.apply(variables, seen, tokens, train=True, mutable=["batch_stats"], rngs=rngs)
        return caption_loss(logits, tokens).mean(), changed["batch_stats"]

    def exact(variables):
        few = test.images[:200]
        return float(np.mean(exact_match(say(name, 1, variables, few)[0], test.labels[:200])))

    fresh = jax.jit(partial(model.init, train=False))(jax.random.key(1), jnp.zeros((1, 64, 64, 1)))
    begun, first = learn(
        f"{name}, network fixed",
        partial(loss, method=fixed),
        with_eyes(fresh),
        train.images,
        train.labels,
        2e-3,
        FIXED_EPOCHS,
        exact,
        only="decoder",
    )
    whole, then = learn(f"{name}, all of it", loss, begun, train.images, train.labels, 1e-3, EPOCHS, exact)
    return whole, first + then


trained, told = {}, {}
for name in DECODERS:
    trained[name], told[name] = train_captioner(name)

figure, axes = plt.subplots(figsize=(7.5, 3), dpi=90, layout="constrained")
for name, curve in told.items():
    axes.plot(range(1, len(curve) + 1), [100 * exact for _, exact in curve], "o-", label=name)
axes.axvline(FIXED_EPOCHS + 0.5, color="0.5", ls="--", label="from here on the network learns as well")
axes.set(xlabel="epoch", ylabel="exact sentences (%)", title="200 test scenes, greedy", ylim=(0, 100))
axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## What is measured
# **Exact**: the sentence is one of the scene's two, word by word. That is honest here, because nothing else is right:
# each scene has exactly these two descriptions. Of a photograph it would be absurd, and so one counts n-grams there:
# BLEU. The parts are counted too: the garment, the digit, the relation between them.
#
# **The blind LSTM** is the decoder of soft attention, given the mean map of all training scenes instead of the image's:
# what it can say from language alone. Whatever a measure gives to it, is no sight.
#
# **Words** is the share of words that are guessed right behind the true ones: teacher forcing in the test. Nobody can
# reach 100 % there, since which of the two sentences is meant is not known before its second word.

# %%
NUMBER = {name: place for place, name in enumerate(RELATIONS)}


def meaning(text):
    """(garment, digit, where the garment is from the digit) of a sentence; None where it does not say."""
    relation = next((r for r in RELATIONS if f" {r} " in text), None)
    if relation is None:
        return None, None, None
    first, second = (part.split()[-1] if part.split() else "" for part in text.split(f" {relation} ", 1))
    garment = next((thing for thing in (first, second) if thing in GARMENTS.values()), None)
    digit = next((thing for thing in (first, second) if thing in DIGITS), None)
    place = NUMBER[relation] ^ (first in DIGITS)  # an even relation and the next are each other's inverse
    return garment, digit, place


truths = [references(label) for label in test.labels]
meant = [meaning(several[0]) for several in truths]


def words_right(logits):
    """The share of words, ends included, that `logits(images, tokens)` has as the likeliest behind the true ones."""
    right, logits = [], jax.jit(logits)
    for at in range(0, len(test), 100):
        tokens = test.labels[at : at + 100]
        guess = np.asarray(logits(normal(test.images[at : at + 100]), tokens)).argmax(-1)
        right.append((guess == tokens)[tokens != PAD])
    return float(np.mean(np.concatenate(right)))


def judged(tokens):
    texts = [sentence(row, WORDS) for row in tokens]
    parts = np.mean(
        [[a == b for a, b in zip(meaning(t), m, strict=True)] for t, m in zip(texts, meant, strict=True)], 0
    )
    row = {"exact": float(np.mean(exact_match(tokens, test.labels)))}
    row |= dict(zip(("garment", "digit", "relation"), parts.tolist(), strict=True))
    return row | ({"BLEU-4": caption_scores(texts, truths)["bleu4"]} if can_score() else {})


attending = captioner("soft attention")
encode = jax.jit(partial(attending.apply, train=False, method="encode"))
eyes = trained["soft attention"]
maps = [encode(eyes, normal(train.images[at : at + 100])) for at in range(0, min(len(train), 2000), 100)]
mean_map = np.concatenate(maps).mean(0, keepdims=True)
blind_begun = attending.apply(eyes, mean_map, method=lambda module, features: module.decoder.begin(features))
blind = search(partial(attending.apply, eyes, train=False), blind_begun, length=LENGTH, beam=3, length_power=0.0)
blind_tokens = np.repeat(np.asarray(blind.tokens), len(test), 0)


def blind_logits(images, tokens):
    begun = jax.tree.map(lambda x: jnp.repeat(x, len(images), 0), blind_begun)
    return attending.apply(eyes, begun, tokens, train=False, method="read")


results = {"blind LSTM": judged(blind_tokens) | {"words": words_right(blind_logits)}}
said, looked = {}, None
for name, variables in trained.items():
    for kind, beam in (("greedy", 1), ("beam of 3", 3)):
        said[name, kind], attention = say(name, beam, variables, test.images)
        looked = attention if (name, kind) == ("soft attention", "greedy") else looked
        results[f"{name}, {kind}"] = judged(said[name, kind])
        if beam == 1:
            results[f"{name}, {kind}"]["words"] = words_right(partial(captioner(name).apply, variables, train=False))
print("the blind LSTM says:", sentence(blind_tokens[0], WORDS))

# %% [markdown]
# ## What it says
# Test scenes, among them some that are told wrongly: green is right, red wrong, with a right sentence below it.

# %%
tokens = said["soft attention", "greedy"]
right = np.asarray(exact_match(tokens, test.labels))
chosen = [*np.flatnonzero(right)[:5], *np.flatnonzero(~right)[:3]]
folder = Path(tempfile.mkdtemp())


def show(draw, *arguments, width):
    """A picture that cnn_jax.visualize writes as a file."""
    draw(*arguments[:-1], folder / "picture.png", arguments[-1])
    display(Image((folder / "picture.png").read_bytes(), width=width))


show(
    draw_captions,
    [test.images[i] for i in chosen],
    [sentence(tokens[i], WORDS) for i in chosen],
    [truths[i][0] for i in chosen],
    [bool(right[i]) for i in chosen],
    f"soft attention, greedy: {100 * right.mean():.1f} % of {len(test)} test scenes told right",
    width=820,
)

# %% [markdown]
# ## Where each word looked
# The weights of the 4x4 positions, enlarged, for each word by itself. Things are looked at as they are named. For "to
# the" nothing needs to be seen, and the weights, which must add up to 1, go where nothing is. Positions of a deep layer
# see much of the image around them, so the map says where features were taken, not all of what they know.

# %%
rows = chosen[:3] + chosen[-1:]
show(
    draw_attention,
    [test.images[i] for i in rows],
    [[WORDS[token] for token in tokens[i] if token not in (PAD, END)] for i in rows],
    np.stack([looked[i] for i in rows]),
    "soft attention, word by word",
    width=900,
)

# %% [markdown]
# ## The table

# %%
COLUMNS = ["exact", "garment", "digit", "relation", "words", *(["BLEU-4"] if can_score() else [])]
lines = ["| test scenes (%) | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
for name, row in results.items():
    cells = [f"{100 * row[column]:.1f}" if column in row else "" for column in COLUMNS]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
display(Markdown("\n".join(lines)))

figure, axes = plt.subplots(figsize=(8, 3), dpi=90, layout="constrained")
shown = [name for name in results if "beam" not in name]
for place, name in enumerate(shown):
    heights = [100 * results[name][column] for column in COLUMNS if column in results[name]]
    columns = [column for column in COLUMNS if column in results[name]]
    at = [COLUMNS.index(column) + 0.27 * (place - 1) for column in columns]
    axes.bar(at, heights, 0.25, label=name.split(",")[0], color=("0.7", "C0", "C1")[place])
axes.set_xticks(range(len(COLUMNS)), COLUMNS)
axes.set(ylabel="%", ylim=(0, 105), title="what each measure gives to whom")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# What to read from it:
#
# - **Soft attention** tells most scenes word by word, though no composition of the test was trained. Relations are
#   right; what is wrong is mostly one thing taken for another. A beam hardly matters: sentences are short, and the
#   network is sure.
# - **Show and Tell** is slower. All that it knows of a scene goes through one vector into the LSTM's first state, and
#   must be kept there until the last word; the mean over a map does not say which thing was where. That is no verdict
#   on the method: its loss still falls after the last epoch (first exercise).
# - **BLEU flatters.** Look at Show and Tell's row: a fifth of its sentences is right, and BLEU-4 (where `pycocoevalcap`
#   is installed: `pip install 'cnn-jax[caption]'`) is above two thirds of all there is, because "to the left of" or "to
#   the right of" are four words in a row that cost half a look. Words behind the true ones flatter more: the blind LSTM
#   has most of them.
# - **The blind LSTM** is not at 1 in 48, as a guess among the test's compositions would be, but at none. The split is
#   against language: of a garment and a relation the test has two digits, and training the eight others. Who trusts
#   what was often said more than what is seen, is wrong each time.
#
# ## With photographs
# The recipe `show_attend_tell_small` is this notebook as a run that can be stopped and resumed; the same with a
# published ResNet-50 and Flickr8k, in Karpathy's split, from a folder of one's own:
#
# ```
# uv run train.py --recipe show_attend_tell_small --model resnet50 --start resnet50.tv_in1k --freeze-until decoder \
#     --dataset karpathy:flickr8k/dataset_flickr8k.json --image-size 224 --caption.look-at stage4
# ```
#
# [docs/captioning.md](https://github.com/cnn_jax/cnn_jax/blob/main/docs/captioning.md) has the options, and what a
# longer training of this network gives.

# %% [markdown]
# ## Exercises
# 1. Give Show and Tell more epochs (the recipe has 20). Which is learned first: garment, digit or relation?
#    Then train soft attention from `fresh` instead of `with_eyes(fresh)`: what is at chance now (1 in 6, 1 in 10, 1 in
#    4)?
# 2. Mirror training images with probability 1/2 without touching their sentences. What happens to "above" and "below",
#    and what to "left" and "right"? Predict the share of exact sentences before you measure it.
# 3. Call `beam_search(..., length_power=1)`, which divides by the number of words. Does it change which of the two
#    right sentences is said? Count words: "above" needs three fewer than "to the left of".
