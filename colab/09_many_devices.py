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
# # One step on many devices
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cnn_jax/cnn_jax/blob/main/colab/09_many_devices.ipynb)
#
# One training step, written as for one device and run on eight, gives the same loss, gradients and batch-norm
# statistics. Then what is sent between devices, read from the compiled program; what code that is written per device
# computes instead; parameters in parts (FSDP); and whether a batch eight times as large still trains.
#
# **Runtime**: a CPU is enough, which pretends to be eight devices; 1 to 2 minutes on 2 cores. Several TPU chips or GPUs
# are taken where there are some (Colab's TPU runtime has one chip).

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
import jax.extend

if len(jax.devices()) < 2:  # one device has nobody to share with: a CPU that pretends to be eight computes the same
    jax.extend.backend.clear_backends()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
N = len(jax.devices())
print(f"jax {jax.__version__} on {N} x {jax.devices()[0].device_kind}")

# %% [markdown]
# ## One mesh, one axis
# `cnn_jax.sharding` knows one mesh with one axis, `data`. An array is either *split* over it along its first axis (a
# batch) or *replicated*, whole on every device (parameters, statistics). That is all that is said; the compiler finds
# out what has to be sent. `data_mesh` refuses a batch that does not divide.

# %%
import re
import time
from functools import cache, partial

import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Markdown, display
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P

from cnn_jax import sharding
from cnn_jax.compilation import jit_once
from cnn_jax.models.resnet import ResNet
from cnn_jax.models.resnet_cifar import ResNetCifar

BATCH = 16 * N if SMOKE else 128 // N * N  # images of a step, over all devices
many = sharding.data_mesh(BATCH)
one = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
MESHES = {1: one, N: many}
if N > 1:
    try:
        sharding.data_mesh(BATCH + 1)
    except cnn_jax.UserError as error:
        print(error)


def halved(images):
    """Digits of 14x14 pixels, so that two cores do for eight devices: (N, 14, 14, 1) float32, about normalised."""
    means = np.asarray(images, np.float32).reshape(-1, 14, 2, 14, 2, 1).mean((2, 4))
    return (means / 255 - 0.13) / 0.28


digits = {split: cnn_jax.open_dataset("mnist_5k", split) for split in ("train", "test")}
pixels, answers = (
    {split: f(each) for split, each in digits.items()}
    for f in (lambda s: halved(s.images), lambda s: np.asarray(s.labels, np.int32))
)
order = np.random.default_rng(0).permutation(len(answers["train"]))
batch = pixels["train"][order[:BATCH]], answers["train"][order[:BATCH]]

COLORS = plt.get_cmap("tab10").colors


def draw_owners(axes, array, title):
    """Colours the first two axes of an array by the device that holds each part."""
    rows, columns = (*array.shape, 1)[:2]
    axes.set(xlim=(0, columns), ylim=(rows, 0), xticks=[0, columns], yticks=[0, rows], title=title)
    held = {}
    for shard in array.addressable_shards:
        index = tuple(each.indices(size)[:2] for each, size in zip(shard.index, array.shape, strict=True))
        held.setdefault((*index, (0, 1))[:2], []).append(shard.device.id)
    for ((top, bottom), (left, right)), devices in held.items():
        whole = len(devices) > 1
        color = "#dddddd" if whole else COLORS[devices[0] % 10]
        axes.add_patch(plt.Rectangle((left, top), right - left, bottom - top, facecolor=color, edgecolor="white"))
        told = f"all of it on each\nof {len(devices)} devices" if whole else f"device {devices[0]}"
        turned = 90 if right - left < columns / 4 else 0
        axes.text((left + right) / 2, (top + bottom) / 2, told, ha="center", va="center", fontsize=8, rotation=turned)


labels_split = jax.device_put(batch[1][:, None], sharding.split(many))
matrix = jax.device_put(np.zeros((64, 10), np.float32), sharding.replicated(many))
table = np.zeros((256, 512), np.float32)  # large enough to be split by FSDP, see below
parts = jax.device_put(table, sharding.state_shardings(many, table, fully_sharded=True))
figure, cells = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
draw_owners(cells[0], labels_split, f"labels of a batch, ({BATCH}, 1): split")
draw_owners(cells[1], matrix, "the head's kernel, (64, 10): replicated")
draw_owners(cells[2], parts, "a large kernel, (256, 512), with FSDP")
plt.show()

# %% [markdown]
# ## The step, written once
# A step of gradient descent for a network with batch norm, as on one device: the loss is the mean over *the batch*, the
# statistics are those of *the batch*. No `pmap`, no `psum`, no name of an axis. Where the inputs lie decides what runs.

# %%
network = ResNetCifar(1)  # 8 layers
variables = jit_once(lambda key: network.init(key, jnp.zeros((1, 14, 14, 1)), train=False))(jax.random.key(0))


def gradient_of(network, variables, images, labels):
    """Loss, gradients and the statistics that batch norm keeps of a batch."""

    def loss(params):
        logits, moved = network.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved["batch_stats"]

    (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    return {"loss": value, "gradients": gradients, "statistics": statistics}


compiled_gradient = jax.jit(gradient_of, static_argnums=0)


def on(mesh, network, images, labels):
    """`gradient_of` with the batch split over the devices of a mesh, as NumPy arrays."""
    placed = jax.device_put((images, labels), sharding.split(mesh))
    everywhere = jax.device_put(variables, sharding.replicated(mesh))
    return sharding.whole(compiled_gradient(network, everywhere, *placed))


@cache
def in_groups_of(size):
    """The network with batch norm over so many images; as create_model(..., batch_norm={"group_size": size})."""
    return ResNetCifar(1, norm=partial(network.norm, group_size=size))


def apart(ours, theirs):
    """The largest difference of two trees over the largest value."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    return float(max(np.abs(a - b).max() for a, b in pairs) / max(np.abs(b).max() for _, b in pairs))


def compared(ours, theirs):
    """`apart` of each part, as cells of a table."""
    return " | ".join(f"{apart(ours[kind], theirs[kind]):.0e}" for kind in ("loss", "gradients", "statistics"))


grouped = in_groups_of(BATCH // N)
whole_batch = {count: on(mesh, network, *batch) for count, mesh in MESHES.items()}
in_groups = {count: on(mesh, grouped, *batch) for count, mesh in MESHES.items()}
HEAD = ["| largest difference over the largest value | loss | gradients | statistics |", "| --- | ---: | ---: | ---: |"]
rows = [
    *HEAD,
    f"| 1 device and {N}, statistics of the whole batch | {compared(whole_batch[N], whole_batch[1])} |",
    f"| 1 device and {N}, of groups of {BATCH // N} images | {compared(in_groups[N], in_groups[1])} |",
    f"| of groups and of the whole batch | {compared(in_groups[1], whole_batch[1])} |",
]
display(Markdown("\n".join(rows)))
exact = max(apart(whole_batch[N][kind], whole_batch[1][kind]) for kind in whole_batch[1])
if jax.default_backend() == "cpu":  # elsewhere products are of shorter numbers
    assert exact < 1e-4

# %% [markdown]
# The first two rows are float32's rounding: sums in another order. The last is no error but another function: batch
# norm over groups of consecutive images ("ghost" batch norm; Goyal et al. 1706.02677, sec. 2.3, keep 32 a worker).
#
# ## What the usual code computes
# Written per device, as with `pmap`, each device normalises with the statistics of its own share, and gradients are
# averaged. The number of devices is then part of the model. Below is that code, by `shard_map`, with its loss on 1 to N
# devices; and, to show what it is, `group_size` of the same share **on one device**: the same numbers. In a batch that
# is sorted by class, as a careless loader gives it, every share has its own classes.

# %%


@cache
def per_device(count):
    """A step per device, on `count` of them: (variables, images, labels) -> what each computes, averaged."""

    def body(variables, images, labels):
        return jax.lax.pmean(gradient_of(network, variables, images, labels), "data")

    mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
    places = {"mesh": mesh, "in_specs": (P(), P("data"), P("data")), "out_specs": P(), "check_vma": False}
    return jax.jit(jax.shard_map(body, **places))


by_class = np.argsort(batch[1], kind="stable")
orders = {"shuffled": batch, "sorted by class": tuple(part[by_class] for part in batch)}
counts = [count for count in (1, 2, 4, 8) if count <= N and N % count == 0]
if SMOKE:
    counts = sorted({1, N})
titles = "devices", "images of each", "batch", "loss per device", "whole batch", "`group_size` on 1 device"
rows = [f"| {' | '.join(titles)} | gradients differ from the whole batch's by |"]
rows.append("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
wrong = {}
for how, (images, labels) in orders.items():
    right = on(many, network, images, labels)
    for count in counts:
        share = BATCH // count
        found = jax.device_get(per_device(count)(variables, images, labels))
        told = on(one, in_groups_of(share), images, labels)
        wrong[how, count] = optax.tree.norm(jax.tree.map(np.subtract, found["gradients"], right["gradients"]))
        wrong[how, count] = float(wrong[how, count] / optax.tree.norm(right["gradients"]))
        losses = " | ".join(f"{float(each['loss']):.5f}" for each in (found, right, told))
        rows.append(f"| {count} | {share} | {how} | {losses} | {100 * wrong[how, count]:.1f} % |")
        if jax.default_backend() == "cpu":
            assert abs(found["loss"] - told["loss"]) < 1e-4
display(Markdown("\n".join(rows)))

# %% [markdown]
# The losses hardly differ; the gradients do, the more the fewer images a device has, and most where its images are
# alike. Neither is wrong in itself. What is wrong is a result that changes with the machine, by a choice that nobody
# made. Here it is an option, `batch_norm={"group_size": 32}` or `train.py --bn-group-size 32`, and then the numbers are
# the same on any number of devices, and no device waits for another in the middle of a layer.
#
# ## What is sent
# The compiled program tells. An all-reduce adds an array over all devices. The gradients are 4 bytes a parameter,
# whatever the batch. Batch norm's sums are small, but they wait for one another, layer by layer: two forward (the mean,
# then the variance around it), and backward two, which the compiler may join.

# %%
SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
SENDS = re.compile(r"= ([^=]*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def collectives(program):
    """(kind, bytes of the result, where in the network) of each in a compiled program's text."""
    found = []
    for line in re.sub(r"/\*.*?\*/", "", program).splitlines():
        if match := SENDS.search(line):
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            size = sum(SIZES[kind] * int(np.prod([int(n) for n in sizes.split(",") if n])) for kind, sizes in shapes)
            found.append((match[2], size, (re.search(r'op_name="([^"]*)"', line) or ["", ""])[1]))
    return found


def compiled_text(mesh, network, variables, fully_sharded=False):
    """The text of the compiled `gradient_of` for a mesh."""
    places = sharding.state_shardings(mesh, variables, fully_sharded)
    out = {"loss": sharding.replicated(mesh), "gradients": places["params"], "statistics": places["batch_stats"]}
    given = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), variables, places
    )
    images = jax.ShapeDtypeStruct((BATCH, 14, 14, 1), np.float32, sharding=sharding.split(mesh))
    labels = jax.ShapeDtypeStruct((BATCH,), np.int32, sharding=sharding.split(mesh))
    return jax.jit(partial(gradient_of, network), out_shardings=out).lower(given, images, labels).compile().as_text()


# The same eight layers, four times as wide: with arrays that FSDP splits.
wide = ResNet((1, 1, 1), stem="cifar", num_classes=10)
wide_variables = jit_once(lambda key: wide.init(key, jnp.zeros((1, 14, 14, 1)), train=False))(jax.random.key(0))
programs = {
    "1 device": (one, network, variables, False),
    f"{N} devices, whole batch": (many, network, variables, False),
    f"{N} devices, groups of {BATCH // N}": (many, grouped, variables, False),
    f"{N} devices, four times as wide": (many, wide, wide_variables, False),
    "the same with FSDP": (many, wide, wide_variables, True),
}
sent = {name: collectives(compiled_text(*which)) for name, which in programs.items()}
rows = [
    "| program | all-reduces | KB | all-gathers | KB | parameters, KB |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
]
for name, (_, _, of, _) in programs.items():
    cells = []
    for kind in ("all-reduce", "all-gather"):
        sizes = [size for each, size, _ in sent[name] if each == kind]
        cells += [f"{len(sizes)}", f"{sum(sizes) / 1e3:,.1f}"]
    held = 4 * sum(leaf.size for leaf in jax.tree.leaves(of["params"])) / 1e3
    rows.append(f"| {name} | {' | '.join(cells)} | {held:,.1f} |")
display(Markdown("\n".join(rows)))

norms = len(jax.tree.leaves(variables["batch_stats"])) // 2
reduced = [each for each in sent[f"{N} devices, whole batch"] if each[0] == "all-reduce"]
back = sum("transpose(" in where for _, _, where in reduced)
print(f"{norms} batch norms; of {len(reduced)} all-reduces {len(reduced) - back} run forward and {back} backward")
for which, (_, size, where) in zip(("first", "last"), reduced[:1] + reduced[-1:], strict=False):
    print(f"the {which}: {size} bytes, of {where.removeprefix('jit(gradient_of)/').split(':')[0].lstrip('(')}")

# %% [markdown]
# ## FSDP: nobody holds everything
# With `fully_sharded` arrays of at least 65,536 values lie in parts, along their largest dimension that divides by the
# number of devices; parameters, momentum and averages alike (ZeRO, stage 3: Rajbhandari et al. 1910.02054). The step is
# the same function. `train.py --fsdp` places the state so before it compiles its step (`training/compiled.py`).

# %%
optimizer = optax.sgd(0.05, momentum=0.9)


def train_step(network, optimizer, variables, state, images, labels):
    """One step -> (variables, optimiser's state, loss)."""
    found = gradient_of(network, variables, images, labels)
    updates, state = optimizer.update(found["gradients"], state, variables["params"])
    params = optax.apply_updates(variables["params"], updates)
    return {"params": params, "batch_stats": found["statistics"]}, state, found["loss"]


def compiled_step(mesh, network, optimizer, variables, fully_sharded=False):
    """A step for a mesh, and the state that it begins with, in its places."""
    state = variables, optimizer.init(variables["params"])
    places = sharding.state_shardings(mesh, state, fully_sharded)
    step = jax.jit(partial(train_step, network, optimizer), out_shardings=(*places, sharding.replicated(mesh)))
    return step, jax.device_put(state, places)


few = jax.tree.map(lambda values: values[: 2 * N], batch) if SMOKE else batch
rows = ["| | loss, step 1 | step 2 | step 3 | MB of state on device 0 |", "| --- | ---: | ---: | ---: | ---: |"]
for name, mesh, fully_sharded in (
    ("1 device", one, False),
    (f"{N} devices", many, False),
    (f"{N} devices, FSDP", many, True),
):
    step, state = compiled_step(mesh, wide, optimizer, wide_variables, fully_sharded)
    here = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state)]
    losses = []
    for _ in range(3):
        *state, loss = step(*state, *jax.device_put(few, sharding.split(mesh)))
        losses.append(f"{float(loss):.6f}")
    rows.append(f"| {name} | {' | '.join(losses)} | {sum(here) / 1e6:.1f} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# What a device holds of larger networks, computed from shapes alone: float32, SGD with momentum. An array that no
# longer divides is whole on each, so that more devices may hold more.

# %%


def held(name, count, fully_sharded):
    """MB of parameters, statistics and momentum on each of `count` devices."""
    shapes = cnn_jax.model_info(name).structure.variables
    places = sharding.state_shardings(AbstractMesh((count,), ("data",)), shapes, fully_sharded)
    found = 0
    for kind, times in (("params", 2), ("batch_stats", 1)):
        pairs = zip(jax.tree.leaves(shapes.get(kind, {})), jax.tree.leaves(places.get(kind, {})), strict=True)
        found += times * sum(4 * leaf.size // (count if "data" in place.spec else 1) for leaf, place in pairs)
    return found / 1e6


rows = ["| MB on each device | replicated | FSDP, 8 | 64 | 256 |", "| --- | ---: | ---: | ---: | ---: |"]
for name in ("mobilenetv2_100", "resnet50", "alexnet", "vgg16")[: 1 if SMOKE else None]:
    told = [held(name, 8, False), *(held(name, count, True) for count in (8, 64, 256))]
    rows.append(f"| {name} | {' | '.join(f'{each:,.0f}' for each in told)} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# ## A whole training, and every test image once
# The same seed, the same images in the same order, on 1 device and on N. Rounding differs, and training makes small
# differences larger; the curves say by how much. The last batch of a test is the other classic mistake: 1,000 images do
# not divide. It is filled up, and what fills it is masked; to drop it, or to count the filling, is another number.

# %%
EPOCHS = 1 if SMOKE else 6
PER_EPOCH = 2 if SMOKE else len(answers["train"]) // BATCH


@partial(jax.jit, static_argnums=0)
def right_of(network, variables, images, labels):
    """Whether each guess is right, (B,)."""
    return network.apply(variables, images, train=False).argmax(-1) == labels


def tested(mesh, variables, images, labels):
    """How many are right of every image once, of the whole batches alone, and with the filling counted."""
    filled = np.arange(-(-len(labels) // BATCH) * BATCH) % len(labels)  # the filling: the first images again
    mask, found = np.arange(len(filled)) < len(labels), []
    for rows in filled.reshape(-1, BATCH):
        placed = jax.device_put((images[rows], labels[rows]), sharding.split(mesh))
        found.append(np.asarray(right_of(network, variables, *placed)))
    found = np.concatenate(found)
    dropped = len(labels) // BATCH * BATCH
    return {
        "masked": (found[mask].sum(), mask.sum()),
        "last batch dropped": (found[:dropped].sum(), dropped),
        "filling counted": (found.sum(), len(found)),
    }


def trained(mesh, rate, batch_size=BATCH, epochs=EPOCHS, per_epoch=PER_EPOCH):
    """Losses of all steps and the variables after them; `rate` is optax's."""
    step, state = compiled_step(mesh, network, optax.sgd(rate, momentum=0.9, nesterov=True), variables)
    losses = []
    for epoch in range(epochs):
        rows = np.random.default_rng(epoch).permutation(len(answers["train"]))[: per_epoch * batch_size]
        for some in rows.reshape(per_epoch, batch_size):
            given = jax.device_put((pixels["train"][some], answers["train"][some]), sharding.split(mesh))
            *state, loss = step(*state, *given)
            losses.append(float(loss))
    return np.array(losses), state[0]


curves, ends, seconds = {}, {}, {}
for count, mesh in MESHES.items():
    began = time.perf_counter()
    curves[count], ends[count] = trained(mesh, optax.cosine_decay_schedule(0.1, EPOCHS * PER_EPOCH))
    seconds[count] = time.perf_counter() - began
    print(f"on {count}: loss {curves[count][-PER_EPOCH:].mean():.4f}, {seconds[count]:.0f} s", flush=True)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for (count, curve), style in zip(curves.items(), ("-", ":"), strict=False):
    left.plot(curve, style, linewidth=1 if style == "-" else 2.5, label=f"{count} device{'s' * (count > 1)}")
left.set(xlabel="step", ylabel="training loss", yscale="log", title="One curve, drawn twice")
left.legend()
right.plot(np.abs(curves[1] - curves[N]) + 1e-9, color="#e45756")
right.set(
    xlabel="step", ylabel="difference of the losses", yscale="log", title="Rounding, and what training makes of it"
)
for axes in (left, right):
    axes.grid(alpha=0.3)
plt.show()

few_tests = slice(0, 200 if SMOKE else None)
rows = [
    "| test images right | " + " | ".join(f"trained on {count}" for count in MESHES) + " |",
    "| --- |" + " ---: |" * len(MESHES),
]
results = {
    count: tested(mesh, ends[count], pixels["test"][few_tests], answers["test"][few_tests])
    for count, mesh in MESHES.items()
}
for way in results[N]:
    cells = (
        f"{found[way][0]} of {found[way][1]} = {100 * found[way][0] / found[way][1]:.2f} %"
        for found in results.values()
    )
    rows.append(f"| {way} | {' | '.join(cells)} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# Pretended devices share the cores of one, so nothing is faster by them: what is shown are the numbers.
#
# ## What many devices are for: a larger batch
# With k times the devices a step takes k times the images, and there are k times fewer steps. Goyal et al.
# (1706.02677) multiply the learning rate by k, too (sec. 2.1, the linear scaling rule), and warm it up. Tried here: the
# same number of epochs by a small batch and by one eight times as large, with the rate as it was, with eight times the
# rate at once, and with a warm-up of a quarter of the steps.

# %%
K, SMALL, RATE = 8, max(N, 32), 0.02
steps = {size: 2 if SMOKE else EPOCHS * (len(answers["train"]) // size) for size in (SMALL, K * SMALL)}
warm = optax.warmup_cosine_decay_schedule(0.0, K * RATE, max(1, steps[K * SMALL] // 4), steps[K * SMALL])
plans = {
    f"batch {SMALL}, rate {RATE}": (SMALL, optax.cosine_decay_schedule(RATE, steps[SMALL])),
    f"batch {K * SMALL}, rate {RATE}": (K * SMALL, optax.cosine_decay_schedule(RATE, steps[K * SMALL])),
    f"batch {K * SMALL}, rate {K * RATE}": (K * SMALL, optax.cosine_decay_schedule(K * RATE, steps[K * SMALL])),
    f"batch {K * SMALL}, rate {K * RATE}, warm-up": (K * SMALL, warm),
}
if SMOKE:
    plans = dict(list(plans.items())[:2])
scaled = {}
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
for name, (size, rate) in plans.items():
    per_epoch = 2 if SMOKE else len(answers["train"]) // size
    losses, end = trained(many, rate, size, per_epoch=per_epoch)
    scaled[name] = tested(many, end, pixels["test"][few_tests], answers["test"][few_tests])["masked"]
    smooth = losses.reshape(EPOCHS, -1).mean(1)
    axes.plot(np.arange(1, EPOCHS + 1), smooth, marker="o", label=name)
    print(f"{name}: {len(losses)} steps, {scaled[name][0]} of {scaled[name][1]} right", flush=True)
axes.set(xlabel="epoch", ylabel="mean training loss", yscale="log", title="A batch eight times as large")
axes.grid(alpha=0.3)
axes.legend()
plt.show()

# %% [markdown]
# The rate is what the larger batch lacked. The warm-up is for networks that do not survive the large rate at first;
# whether this one needed it, the last two curves say.
#
# ## All of it

# %%
percent = {name: f"{100 * right / count:.1f} %" for name, (right, count) in scaled.items()}
reduces = {name: sum(kind == "all-reduce" for kind, _, _ in found) for name, found in sent.items()}
rows = ["| question | answer here |", "| --- | --- |"]
for question, answer in {
    f"loss, gradients, statistics: {N} devices against 1": f"{exact:.0e} apart at most",
    "gradients, one step per device, shuffled": f"{100 * wrong['shuffled', counts[-1]]:.0f} % apart",
    "gradients, one step per device, sorted by class": f"{100 * wrong['sorted by class', counts[-1]]:.0f} % apart",
    "all-reduces in a step, statistics of the whole batch": reduces[f"{N} devices, whole batch"],
    "all-reduces in a step, groups that fit a device": reduces[f"{N} devices, groups of {BATCH // N}"],
    f"test images right after training on 1 and {N} devices": " and ".join(
        str(found["masked"][0]) for found in results.values()
    ),
    **{f"test images right, {name}": told for name, told in percent.items()},
}.items():
    rows.append(f"| {question} | {answer} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# The same from a command line, on as many devices as there are: `train.py --recipe resnet50_one_hour --batch-size 1024
# --bn-group-size 32 --fsdp`; several hosts, SLURM and Kubernetes are in docs/scale.md.
#
# ## Exercises
# 1. Take the mean of the gradients of two half batches, every second image in each (`train.py` accumulates so, and no
#    image changes its device). It is not the gradient of the whole batch. With which `group_size`, and with the images
#    in which order, is it the gradient of one batch, to 1e-6?
# 2. `ResNetCifar(3)`, ResNet-20, has 19 batch norms. How many all-reduces do you expect, by the count for 7 of them,
#    and how many has its compiled program? (A CPU's compiler leaves 58.) And in groups that fit a device?
# 3. Raise `K` to 32. From which batch on does the linear rule fail on these 4,000 digits? Goyal et al. kept their error
#    up to 8,192 images of 1.28 million.
