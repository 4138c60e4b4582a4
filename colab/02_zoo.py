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
# # A tour of the zoo
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn_jax/cnn_jax/blob/main/colab/02_zoo.ipynb)
#
# All networks of the package, from LeNet-5 (1998) to MobileNetV3 (2019), and what one does with a network: find it,
# build it, call it, look inside, differentiate it, carry its weights in and out. A network here is a pure function of
# its variables and images; every claim below is checked by a line of code.
#
# **Runtime**: a CPU is enough; about a minute on 2 cores.

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
# ## Find one
# `list_models` takes a glob, as a shell does, and looks at aliases too. `model_info` gives a network's card without
# building the network: its paper and section, sizes, what it wants of an image, published weights and accuracies.

# %%
import tempfile
import time
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Image, Markdown, display
from safetensors.numpy import save_file

from cnn_jax.compilation import jit_once
from cnn_jax.models.structure import structure
from cnn_jax.visualize.timeline import draw_timeline

print(len(cnn_jax.list_models()), "networks,", len(cnn_jax.list_models(pretrained=True)), "published weights")
for glob in ("lenet*", "vgg*", "plain*", "densenet_bc*", "mobilenetv2*", "*inception*"):
    print(f"{glob:>14}: {', '.join(cnn_jax.list_models(glob))}")

card = cnn_jax.model_info("resnet50")
print(f"\n{card.name}: {card.paper}, {card.section}, {card.year}")
print(f"{card.params:,} parameters, {card.macs:,} multiply-accumulates for an image of {card.input_size}")
print(f"the same layers as {', '.join(card.references)}; {len(card.weights)} published weights, of which the first two")
for published in card.accuracies[:2]:
    print(f"    {published.of}: top-1 {published.top1} %, top-5 {published.top5} % ({published.source})")

# %% [markdown]
# The same cards drawn. Each error is the first that was published for the network, by the protocol of its time (ten
# crops for AlexNet, one for ResNet), so that it is a picture of history and no ranking. Look at the areas: VGG is the
# largest, GoogLeNet of the same year one of the smallest.

# %%
with tempfile.TemporaryDirectory() as folder:
    draw_timeline(Path(folder) / "timeline.png")
    display(Image(Path(folder, "timeline.png").read_bytes(), width=850))

# %% [markdown]
# ## Build, initialise, call
# `create_model` makes a linen module, which holds no numbers. `init` makes the variables, a dictionary; `apply` is a
# function of variables and images. Where it makes sense a network takes options. This is a ResNet-18 for small images
# (`stem="cifar"`: one 3x3 convolution of stride 1, no pool) and a quarter as wide, so that a CPU can train it here.

# %%
options = {"stem": "cifar", "width": 16, "stem_width": 16, "num_classes": 10}
model = cnn_jax.create_model("resnet18", **options)
image = (28, 28, 1)  # (H, W, C): the channels follow the images
variables = jit_once(lambda key: model.init(key, jnp.zeros((1, *image)), train=False))(jax.random.key(0))

for kind, values in variables.items():
    leaves = jax.tree.leaves(values)
    print(f"{kind}: {len(leaves)} arrays, {sum(leaf.size for leaf in leaves):,} numbers")
evaluate = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
logits = evaluate(variables, jnp.zeros((8, *image)))
print(f"8 images {(8, *image)} -> logits {logits.shape} {logits.dtype}")

# %% [markdown]
# ## What `train` moves, and what it does not
# A linen module has no mode. `train` is an argument of each call: batch norm takes the statistics of this batch (True)
# or the running ones (False), dropout drops or does not. Running statistics are a collection of their own. They come
# back as a second result where the caller asks for them, `mutable=["batch_stats"]`. Nothing is changed in place.

# %%
garments = {split: cnn_jax.open_dataset("fashion_5k", split) for split in ("train", "test")}
names = garments["train"].classes
mean, std = 0.286, 0.353  # of Fashion-MNIST's pixels in [0, 1]


def seen(split):
    """Images as the network takes them, (N, 28, 28, 1) float32, and labels."""
    few = slice(None, None, 40 if SMOKE else 1)
    images, labels = garments[split].images[few], garments[split].labels[few]
    return ((images / 255 - mean) / std).astype(np.float32), labels.astype(np.int32)


def same(one, other):
    """Whether two trees have the same bits."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


(train_images, train_labels), (test_images, test_labels) = seen("train"), seen("test")
batch, before = train_images[:64], jax.tree.map(np.array, variables)

train = jax.jit(lambda variables, images: model.apply(variables, images, train=True, mutable=["batch_stats"]))
silent = jax.jit(lambda variables, images: model.apply(variables, images, train=True))  # nothing mutable
logits, moved = train(variables, batch)

rows = ["| | |", "| --- | --- |"]
for what, told in {
    "two calls on the same arguments give the same bits": same(evaluate(variables, batch), evaluate(variables, batch)),
    "`train=True` and `train=False` give the same logits": same(logits, evaluate(variables, batch)),
    "without `mutable` there are the same logits, and no statistics": same(logits, silent(variables, batch)),
    "the variables that went in have changed": not same(before, variables),
    "the statistics that came out differ from them": not same(moved["batch_stats"], variables["batch_stats"]),
    "parameters came out, too": "params" in moved,
}.items():
    rows.append(f"| {what} | {'yes' if told else 'no'} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# By how much they move: new = 0.9 old + 0.1 of the batch (Flax's momentum is 1 less PyTorch's). The stem's
# convolution, asked for by its path, says what the batch was.

# %%
stem = jax.jit(partial(cnn_jax.extract_features, model, names="stem/conv"))
before_norm = np.asarray(stem(variables, batch)["stem/conv"], np.float64)
old, new = (tree["batch_stats"]["stem"]["norm"] for tree in (variables, moved))
for name, of_batch in {"mean": before_norm.mean((0, 1, 2)), "var": before_norm.var((0, 1, 2))}.items():
    expected = 0.9 * np.asarray(old[name]) + 0.1 * of_batch
    print(f"running {name} against 0.9 old + 0.1 batch: {np.abs(new[name] - expected).max():.0e} apart at most")
    np.testing.assert_allclose(new[name], expected, rtol=1e-3, atol=1e-3)

# %% [markdown]
# ## Train it
# The whole loop, since all that follows is nicer with a network that knows something.

# %%
EPOCHS, BATCH = (1, 20) if SMOKE else (3, 100)
steps = EPOCHS * (len(train_images) // BATCH)
optimizer = optax.sgd(optax.cosine_decay_schedule(0.05, steps), momentum=0.9, nesterov=True)


@jax.jit
def step(variables, state, images, labels):
    """One step of gradient descent -> (variables, state, loss)."""

    def loss(params):
        logits, moved = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved

    (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    updates, state = optimizer.update(gradient, state)
    return {"params": optax.apply_updates(variables["params"], updates), **moved}, state, value


def accuracy(variables):
    """Share of the test images, in percent."""
    guesses = np.concatenate([evaluate(variables, part).argmax(-1) for part in np.array_split(test_images, 4)])
    return 100 * np.mean(guesses == test_labels)


untrained, state, order = variables, optimizer.init(variables["params"]), np.random.default_rng(0)
for epoch in range(1, EPOCHS + 1):
    began, losses = time.perf_counter(), []
    for rows in order.permutation(len(train_images))[: steps // EPOCHS * BATCH].reshape(-1, BATCH):
        variables, state, value = step(variables, state, train_images[rows], train_labels[rows])
        losses.append(value)
    told = f"loss {np.mean(losses):.3f}, {accuracy(variables):.1f} % of the test images right"
    print(f"epoch {epoch}: {told}, {time.perf_counter() - began:.0f} s", flush=True)

# %% [markdown]
# ## Look inside
# `extract_features` gives activations by name: of taps (a network's stages) or of any layer by its path; or, for
# detectors, the last map of each stride. It is the same function with other outputs, so it can be jitted and
# differentiated, and no hook is left behind.

# %%
boot = test_images[test_labels == names.index("Ankle boot")][:1]
wanted = ("stem", "stage1_block1/conv1", "stage2", "stage3", "stage4")
features = jax.jit(partial(cnn_jax.extract_features, model, names=wanted))(variables, boot)
features = {name: features[name] for name in wanted}  # jit sorts the keys of a dictionary
pyramid = jax.jit(partial(cnn_jax.extract_features, model, strides=(1, 2, 4, 8)))(variables, boot)
print("by stride:", {name: x.shape for name, x in pyramid.items()})
head = jax.jit(partial(model.apply, train=False, method="forward_head"))  # what follows the last map
difference = float(jnp.abs(head(variables, pyramid["stage4"]) - evaluate(variables, boot)).max())
print(f"the last map through forward_head, against the whole network: {difference:.0e} apart at most")

SHOWN = 10  # of each layer's channels, the strongest
figure, cells = plt.subplots(len(features), SHOWN + 1, figsize=(11, 5.2), layout="constrained")
for row, (name, activation) in zip(cells, features.items(), strict=True):
    strongest = np.argsort(-np.asarray(activation[0]).mean((0, 1)), kind="stable")[:SHOWN]
    for axes in row:
        axes.axis("off")
    row[0].text(1, 0.5, f"{name}\n{'x'.join(map(str, activation.shape[1:]))}", ha="right", va="center", fontsize=9)
    for axes, channel in zip(row[1:], strongest, strict=True):
        axes.imshow(activation[0, :, :, channel], cmap="viridis")
        axes.set_title(channel, fontsize=7, pad=2)
figure.suptitle("An ankle boot on its way: the strongest channels of each layer")
plt.show()

# %% [markdown]
# ## Every layer
# `structure` evaluates a network abstractly, without weights or arithmetic: layers, shapes, parameters and
# multiply-accumulates. On a command line the same is `cnn-jax summary resnet18 --batch 32`.

# %%
told = structure(model, image)
rows = ["| layer | kind | output | parameters | MACs |", "| --- | --- | ---: | ---: | ---: |"]
listed = [layer for layer in told.layers if layer.kind != "BatchNorm"]
for layer in listed:
    shape = "x".join(map(str, layer.shape))
    rows.append(f"| {layer.path} | {layer.kind} | {shape} | {layer.params:,} | {layer.macs:,} |")
norms = [layer for layer in told.layers if layer.kind == "BatchNorm"]
rows.append(f"| batch norms | {len(norms)} of them | | {sum(layer.params for layer in norms):,} | 0 |")
rows.append(f"| all | | | {told.params:,} | {told.macs:,} |")
display(Markdown("\n".join(rows)))
assert told.params == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))

# %% [markdown]
# Options change that table. `se_reduction=16` adds squeeze-and-excitation with the paper's r (Hu et al. 1709.01507);
# `num_classes=0` leaves the classifier out; `output_stride=8` dilates the last two stages where they would halve the
# image; `dtype` is the type that is computed in: parameters stay float32, and so do logits.

# %%
rows = ["| ResNet-50 with | image | parameters | MACs (billions) | last map | output |"]
rows += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
for given, size in (
    ({}, 224),
    ({"se_reduction": 16}, 224),
    ({"num_classes": 0}, 224),
    ({"output_stride": 8}, 224),
    ({"dtype": jnp.bfloat16}, 224),
    ({"num_classes": 10}, 32),
    ({"num_classes": 10, "stem": "cifar"}, 32),
)[: 2 if SMOKE else None]:
    of = structure(cnn_jax.create_model("resnet50", **given), (size, size, 3))
    said = ", ".join(f"{key}={getattr(value, '__name__', repr(value))}" for key, value in given.items()) or "nothing"
    last = "x".join(map(str, of.taps["stage4"]))
    rows.append(f"| {said} | {size} | {of.params:,} | {of.macs / 1e9:.3f} | {last} | {of.output} |")
display(Markdown("\n".join(rows)))

half = cnn_jax.create_model("resnet18", **options, dtype=jnp.bfloat16)
in_half = jax.jit(lambda variables, images: half.apply(variables, images, train=False))(variables, test_images[:200])
in_full = evaluate(variables, test_images[:200])
agree = 100 * float(np.mean(in_half.argmax(-1) == in_full.argmax(-1)))
print(
    f"our network in bfloat16: logits {in_half.dtype}, the same guess for {agree:.1f} % of {len(in_full)} test images"
)

# %% [markdown]
# ## A function like any other
# `functional` gives the pair (init, apply) without a module. Then a network is something that JAX's transformations
# apply to: `vmap` over keys makes several networks at once and over images gives a gradient for each; `grad` by
# parameters trains, by pixels explains; `jvp` of `grad` is the curvature.

# %%
init, apply = cnn_jax.functional("lenet5_modern")
digits = jnp.asarray(np.pad(test_images[:6], ((0, 0), (2, 2), (2, 2), (0, 0))))
drawn_at_once = jit_once(jax.vmap(lambda key: init(key, (32, 32, 1))))
of_seeds, no_statistics = drawn_at_once(jax.random.split(jax.random.key(0), 3))
together = jax.jit(jax.vmap(partial(apply, train=False), in_axes=(0, 0, None)))
print(f"three LeNets, six images, one call: {together(of_seeds, no_statistics, digits)[0].shape}")

parameters = variables["params"]


def loss_of(params, image, label):
    """The loss of one image, a scalar."""
    logits = model.apply(variables | {"params": params}, image[None], train=False)
    return optax.softmax_cross_entropy_with_integer_labels(logits[0], label)


FEW = 16 if SMOKE else 100
pulls = jax.jit(jax.vmap(lambda image, label: optax.tree.norm(jax.grad(loss_of)(parameters, image, label))))
norms = np.asarray(pulls(test_images[:FEW], test_labels[:FEW]))


@jax.jit
def curvature(image, label):
    """That of the loss along its gradient g, g'Hg / g'g, without making H."""

    def slope(params):
        return jax.grad(loss_of)(params, image, label)

    gradient = slope(parameters)
    turned = jax.jvp(slope, (parameters,), (gradient,))[1]
    return optax.tree.vdot(gradient, turned) / optax.tree.vdot(gradient, gradient)


bend = float(curvature(test_images[0], test_labels[0]))
print(f"curvature of the first test image's loss along its gradient: {bend:.3g}")

sorted_by_pull, guesses = np.argsort(norms, kind="stable"), evaluate(variables, test_images[:FEW]).argmax(-1)
figure, cells = plt.subplots(2, 8, figsize=(11, 3.6), layout="constrained")
for row, picked in zip(cells, (sorted_by_pull[:8], sorted_by_pull[::-1][:8]), strict=True):
    for axes, number in zip(row, picked, strict=False):
        axes.imshow(test_images[number, :, :, 0], cmap="gray_r")
        right = guesses[number] == test_labels[number]
        told = names[test_labels[number]] + ("" if right else f",\ntaken for {names[guesses[number]]}")
        axes.set_title(f"{norms[number]:.2g}: {told}", fontsize=8, color="black" if right else "#b00020")
        axes.axis("off")
figure.suptitle(f"The length of each image's own gradient, by vmap of grad: the smallest and the largest of {FEW}")
plt.show()

# %% [markdown]
# ## Weights in and out
# Networks bear the names of torchvision, timm and Keras where they have the same layers, and weights go both ways in
# those libraries' layout. Published ones are one line, which fetches a file once (not run here):
#
# ```python
# model, variables = cnn_jax.load_pretrained("resnet50.tv_in1k")
# seen = cnn_jax.preprocess("resnet50.tv_in1k")  # files -> the pixels that these weights were trained on
# ```
#
# The same way with the weights from above: out in torchvision's layout, through two kinds of files, and back.

# %%
state_dict = cnn_jax.export_state_dict("resnet18", variables, **options)
for key in ("conv1.weight", "layer1.0.bn1.running_mean", "layer4.1.conv2.weight", "fc.weight"):
    print(f"{key:>26} {state_dict[key].shape}")
print(f"{'stem/conv/kernel':>26} {variables['params']['stem']['conv']['kernel'].shape} (here)\n")

with tempfile.TemporaryDirectory() as folder:
    save_file(state_dict, Path(folder) / "garments.safetensors")
    np.savez(Path(folder) / "garments.npz", **state_dict)
    for file in ("garments.safetensors", "garments.npz"):
        path = Path(folder) / file
        back = cnn_jax.import_state_dict("resnet18", cnn_jax.read_state_dict(path), **options)
        print(f"{file}: {path.stat().st_size / 1e6:.1f} MB, the same bits came back: {same(back, dict(variables))}")
        assert same(back, dict(variables))

# %% [markdown]
# A file may be PyTorch's `.pth`, which is a pickle: only tensors are made of it, nothing in it is run. A backbone for
# another task is the same call with another `num_classes`; then the head is drawn anew, and a warning says so.
#
# ## Batch norm, folded away
# In evaluation a batch norm is a product and a sum by constants, so it can move into the convolution before it:
# w' = w * gain, b' = bias - mean * gain with gain = scale / sqrt(var + epsilon) (Ioffe & Szegedy 1502.03167, alg. 2).
# `fold_batch_norm` finds the pairs in the traced program. What that saves depends on the network and the compiler,
# which fuses much of it anyway; so it is timed here, call by call in turns.

# %%
final, folded = cnn_jax.fold_batch_norm(model, variables)
evaluate_folded = jax.jit(lambda variables, images: final.apply(variables, images, train=False))
ours, theirs = evaluate(variables, test_images[:200]), evaluate_folded(folded, test_images[:200])
apart, largest = (float(jnp.abs(values).max()) for values in (ours - theirs, ours))
print(f"logits of {len(ours)} test images differ by {apart:.0e} at most; the largest is {largest:.1f}")
print("collections left:", ", ".join(folded), "\n")
assert apart < 1e-3
assert same(ours.argmax(-1), theirs.argmax(-1))


def milliseconds(calls, repeats):
    """Medians of calls that take turns, so that what else the machine does meets all of them."""
    taken = np.zeros((repeats, len(calls)))
    for row in taken:
        for number, call in enumerate(calls):
            began = time.perf_counter()
            jax.block_until_ready(call())
            row[number] = 1000 * (time.perf_counter() - began)
    return np.median(taken[1:], axis=0)  # the first compiled


def drawn(network, images):
    """Variables at random."""
    return jit_once(lambda key: network.init(key, images, train=False))(jax.random.key(0))


TIMED = (("resnet20_cifar", 32),) if SMOKE else (("mobilenetv2_100", 224), ("resnet50", 224))
rows = ["| one image | as trained (ms) | folded (ms) | ratio |", "| --- | ---: | ---: | ---: |"]
for name, size in TIMED:
    network, photo = cnn_jax.create_model(name), jnp.ones((1, size, size, 3))
    trained = drawn(network, photo)
    both = (network, trained), cnn_jax.fold_batch_norm(network, trained)
    calls = [partial(jax.jit(partial(module.apply, train=False)), values, photo) for module, values in both]
    whole, less = milliseconds(calls, 4 if SMOKE else 31)
    rows.append(f"| {name} | {whole:.2f} | {less:.2f} | {less / whole:.2f} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# ## Mistakes
# A mistake is a `UserError`, one line that says what would be right. (It is a `ValueError`; on a command line it ends a
# program with exit code 2.)

# %%
alexnet = cnn_jax.functional("alexnet")
mistakes = {
    "a name": lambda: cnn_jax.create_model("resent50"),
    "an option": lambda: cnn_jax.create_model("resnet50", num_clases=10),
    "its value": lambda: cnn_jax.create_model("resnet50", stem="cifar10"),
    "channels first": lambda: model.apply(variables, jnp.zeros((8, 1, 28, 28)), train=False),
    "one image": lambda: model.apply(variables, jnp.zeros((28, 28, 1)), train=False),
    "bytes": lambda: model.apply(variables, garments["test"].images[:8], train=False),
    "a layer": lambda: cnn_jax.extract_features(model, variables, boot, "stage5"),
    "a stride": lambda: cnn_jax.extract_features(model, variables, boot, strides=(4, 64)),
    "weights": lambda: cnn_jax.import_state_dict("resnet34", state_dict),
}
for what, call in mistakes.items():
    try:
        call()
    except cnn_jax.UserError as error:
        print(f"{what}: {error}")
    else:
        raise AssertionError(f"{what} went through")

# %% [markdown]
# ## The whole zoo, and ten of it against their papers
# Every network by what it holds and what it computes. Points to the lower right spend parameters on few operations
# (fully connected layers: AlexNet, VGG); those to the upper left share each weight over many positions.

# %%
cards = [cnn_jax.model_info(name) for name in cnn_jax.list_models()]
figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
dots = axes.scatter(
    [card.params for card in cards],
    [card.macs for card in cards],
    c=[card.year for card in cards],
    cmap="turbo",
    s=22,
    alpha=0.8,
    vmin=2010,
)
places = {
    "lenet1": (8, -3), "lenet5": (8, -3), "alexnet": (8, -3), "vgg16": (8, -8), "googlenet": (-60, -1),
    "resnet50": (8, -3), "resnet1202_cifar": (8, -6), "squeezenet1_0": (-80, -3), "densenet_bc_100_12": (-107, -3),
    "mobilenet_100": (-78, -6), "senet154": (8, 0), "nasnetalarge": (-73, 2), "mobilenet_v3_small": (8, -3),
    "resnet20_cifar": (-85, -3), "mobilenet_025": (-30, -15),
}  # fmt: skip
for name, place in places.items():
    card = cnn_jax.model_info(name)
    axes.scatter(card.params, card.macs, s=40, facecolors="none", edgecolors="black", linewidths=0.8)
    axes.annotate(name, (card.params, card.macs), place, textcoords="offset points", fontsize=8)
axes.set(xscale="log", yscale="log", xlim=(1e3, 1e9), xlabel="parameters", ylabel="multiply-accumulates of one image")
axes.set_title(f"{len(cards)} networks, each at its own image size")
axes.grid(alpha=0.3)
figure.colorbar(dots, label="year of the paper (1989 and 1998 are drawn as 2010)")
plt.show()

# %% [markdown]
# What the papers print, to the digits they print, against what is counted here. GoogLeNet's is the sum of the column
# of its table 1. "No" means further away than one unit of the last printed digit, and three are:
#
# - **GoogLeNet's** table does not add up to its own layers; its stem alone says 2.7K for a 7x7 convolution of 3
#   channels to 64, which is 9,408 without biases.
# - **BN-Inception's** 13.6 million (sec. 4.2) fit neither its fig. 5 nor any published weights; Caffe's port has
#   the number that is counted here.
# - **Pre-activation ResNet-1001** has 10.2 million in the paper's text.
#
# And one reads that VGG has fewer parameters than AlexNet. It has more than twice as many; the table knows.

# %%
table_1 = 2.7e3 + 1e3 * (112 + 159 + 380 + 364 + 437 + 463 + 580 + 840 + 1072 + 1388 + 1000)  # GoogLeNet's "params"
PRINTED = {  # network: parameters, the unit of the last digit, where
    "lenet5": (60_000, 1, "LeCun 1998, sec. II.B"),
    "alexnet": (60e6, 1e6, "Krizhevsky 2012, sec. 4"),
    "vgg16": (138e6, 1e6, "Simonyan 2014, table 2"),
    "googlenet": (table_1, 1e5, "Szegedy 2014, table 1"),
    "bn_inception": (13.6e6, 1e5, "Ioffe 2015, sec. 4.2"),
    "resnet110_cifar": (1.7e6, 1e5, "He 2015, table 6"),
    "resnet1202_cifar": (19.4e6, 1e5, "He 2015, table 6"),
    "preresnet1001_cifar": (10.2e6, 1e5, "He 2016"),
    "densenet_bc_100_12": (0.8e6, 1e5, "Huang 2016, table 2"),
    "mobilenet_100": (4.2e6, 1e5, "Howard 2017, table 4"),
}
rows = [
    "| network | printed | counted | agree | MACs (millions) | source |",
    "| --- | ---: | ---: | --- | ---: | --- |",
]
for name, (printed, unit, where) in PRINTED.items():
    card = cnn_jax.model_info(name)
    if not SMOKE:
        assert card.params == card.structure.params - card.aux_params  # the card is what the layers have
    agree = "yes" if abs(card.params - printed) <= unit else "no"
    shown = f"{printed:,.0f}" if unit == 1 else f"{printed / 1e6:.{0 if unit == 1e6 else 1}f} M"
    rows.append(f"| {name} | {shown} | {card.params:,} | {agree} | {card.macs / 1e6:,.1f} | {where} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# ## Exercises
# 1. How many of ResNet-50's parameters are in its last linear layer? Build it with `num_classes=0` and compare
#    `structure(...).params`; (2048 + 1) x 1000 is the difference. Which share is it of VGG-16's fully connected ones?
# 2. Differentiate by the pixels: `jax.grad(loss_of, argnums=1)` on a test image, drawn beside it. Then draw
#    `cnn_jax.visualize.saliency` of the same image. One is of the loss, the other of the logit and without a sign: at
#    which pixels do they differ by more than a factor?
# 3. Howard 2017, table 6, has MobileNets with a width multiplier: 4.2, 2.6, 1.3 and 0.5 million parameters and 569,
#    325, 149 and 41 million multiply-accumulates. Print those of `mobilenet_100`, `_075`, `_050` and `_025` by
#    `model_info`. Seven of the eight agree when they are rounded; which one was cut off instead?
