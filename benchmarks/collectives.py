"""What devices send each other in a training step, read from the compiled program, and what follows for many chips.

    uv run python -m benchmarks.collectives [NETWORK ...] [--no-prediction] [--no-scaling]

Compiles the training step (SGD with momentum, float32, the network's own image size) for 8 devices that the CPU
pretends to have and sums the bytes of its collectives: with batch norm over the whole batch, over groups that fit a
device, and with --fsdp; and once more for 1 to 8 of them. The gradients are 4 bytes a parameter, whatever the batch,
and so do batch norm's sums not grow with it; with --fsdp the activations of fully connected layers are sent, and those
do. Nothing runs, so this is how much and how often, not how fast. The last table is arithmetic on the first; its
assumptions stand in MACHINES and in `predicted`, and docs/scale.md tells of them.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contender import Rows
from benchmarks.report import command_line, write

NETWORKS = ("alexnet", "vgg16", "inception_v3", "resnet50", "mobilenetv2_100")
DEVICES, PER_DEVICE = 8, 32
COUNTS = (1, 2, 4, DEVICES)
CLASSES = 1000

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
COLLECTIVE = re.compile(
    r"= (?P<shapes>[^=]*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)


class Collective(NamedTuple):
    """One of a program: its kind and the bytes of its result in one device."""

    kind: str
    bytes: int

    def sent(self, devices: int) -> float:
        """Bytes that a device sends in a ring of so many (Patarasuk & Yuan 2009 for the all-reduce)."""
        ring = (devices - 1) / devices
        factors = {"all-reduce": 2 * ring, "all-gather": ring, "reduce-scatter": devices - 1.0, "all-to-all": ring}
        return factors.get(self.kind, 1.0) * self.bytes


def read_collectives(program: str) -> list[Collective]:
    """The collectives in the text of an optimised HLO module, in its order; a loop's body counts once."""
    found = []
    for line in re.sub(r"/\*.*?\*/", "", program).splitlines():
        if match := COLLECTIVE.search(line):
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match["shapes"])
            total = sum(SIZES[kind] * math.prod(int(n) for n in sizes.split(",") if n) for kind, sizes in shapes)
            found.append(Collective(match["kind"], total))
    return found


class Compiled(NamedTuple):
    """What a compiled step says of itself; `state` is in bytes a device, `macs` are for one image forward."""

    collectives: list[Collective]
    params: int
    norms: int
    macs: int
    state: int


def by_kind(found: Compiled) -> dict[str, dict[str, int]]:
    """How many collectives there are of each kind, and the sum of their bytes."""
    sums: dict[str, dict[str, int]] = {}
    for one in found.collectives:
        of = sums.setdefault(one.kind, {"count": 0, "bytes": 0})
        of["count"] += 1
        of["bytes"] += one.bytes
    return sums


def compiled(name: str, group_size: int | None = None, fully_sharded: bool = False, devices: int = DEVICES) -> Compiled:
    """Compiles the training step of a network for so many devices, PER_DEVICE images in each."""
    import jax
    import numpy as np
    from jax.sharding import AxisType, Mesh

    from cnn_jax import sharding
    from cnn_jax.data.order import Timeline
    from cnn_jax.models import model_info
    from cnn_jax.recipes import Recipe, Schedule
    from cnn_jax.training.program import Program
    from cnn_jax.training.step import train_step

    batch_size = PER_DEVICE * devices
    config = Recipe(
        model=name, dataset="synthetic", batch_size=batch_size, bn_group_size=group_size, schedule=Schedule("constant")
    )
    channels = model_info(name).input_size[2]
    program = Program(config, Timeline(batch_size, batch_size, 1), CLASSES, channels)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))  # as sharding.data_mesh

    def placed(tree, places):
        return jax.tree.map(lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree, places)

    state = jax.eval_shape(program.init, 0)
    places = sharding.state_shardings(mesh, state, fully_sharded)
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *program.size, channels), np.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), np.int32),
    }
    batch = placed(batch, dict.fromkeys(batch, sharding.split(mesh)))
    step = jax.jit(partial(train_step, program), donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
    text = step.lower(placed(state, places), batch).compile().as_text()
    shards = jax.tree.map(lambda a, place: math.prod(place.shard_shape(a.shape)) * a.dtype.itemsize, state, places)
    return Compiled(
        read_collectives(text),
        sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        len(jax.tree.leaves(state.batch_stats)) // 2,
        program.flops // 6,
        sum(jax.tree.leaves(shards)),
    )


@dataclass(frozen=True)
class Machine:
    """Chips and the links between them.

    Chips stand in a torus of `slices[chips]`, whose axes are closed to rings where True follows the
    sides, or in nodes of 8 behind switches.
    """

    name: str
    peak: float  # FLOP/s of bfloat16
    link: float  # bytes/s one way: of one link of the torus, of a chip to its node's switch
    hop: float  # seconds a message takes over one link
    launch: float  # seconds to start a collective
    slices: dict[int, tuple[tuple[int, ...], bool]] | None = None
    network: float = 0.0  # bytes/s one way of a chip to other nodes
    network_hop: float = 0.0

    def all_reduce(self, size: float, chips: int) -> tuple[float, float]:
        """Seconds for `size` bytes in each chip: of the bytes (a ring's 2 (N - 1) / N), and of the way."""
        if self.slices is not None:
            sides, closed = self.slices[chips]
            links = len(sides) * (2 if closed else 1)  # all axes at once; both ways where a ring is closed
            ways = sum(side if closed else 2 * (side - 1) for side in sides)
            return 2 * (chips - 1) / chips * size / (links * self.link), self.launch + ways * self.hop
        inside, nodes = min(chips, 8), max(chips // 8, 1)
        through = 2 * (inside - 1) / inside * size / self.link
        across = 2 * (nodes - 1) / nodes * size / inside / self.network
        ways = 2 * self.hop + 2 * math.ceil(math.log2(nodes)) * self.network_hop  # a tree of nodes, up and down
        return through + across, self.launch + ways


# Peak and links: Google Cloud's pages on TPU v4 and v5e and "How to Scale Your Model" (Austin 2025), 45 GB/s a link
# and way, 1 us a hop, axes closed from 4x4x4 on and at 16x16; NVIDIA's H100 SXM data sheet (900 GB/s both ways),
# DGX H100 user guide (400 Gb/s InfiniBand a GPU). Launches and the hops of GPUs are guesses in NCCL's range.
MACHINES = (
    Machine(
        "TPU v4", 275e12, 45e9, 1e-6, 1e-6,
        {8: ((2, 2, 2), False), 64: ((4, 4, 4), True), 256: ((4, 8, 8), True), 1024: ((8, 8, 16), True)},
    ),
    Machine("TPU v5e", 197e12, 45e9, 1e-6, 1e-6, {8: ((2, 4), False), 64: ((8, 8), False), 256: ((16, 16), True)}),
    Machine("8xH100 nodes", 989e12, 450e9, 1e-6, 5e-6, network=50e9, network_hop=5e-6),
)  # fmt: skip
CHIPS = (8, 64, 256, 1024)
UTILISATION = 0.4  # of the peak; less makes steps longer, and scaling better


def predicted(machine: Machine, found: Compiled, chips: int, images: int = PER_DEVICE) -> tuple[float, float]:
    """Images/s a chip to those of a chip alone, with `images` in each: if nothing overlaps, and if gradients do.

    The largest collective is the gradients', which go in one piece. The others are batch norm's; each waits for the
    one before and is waited for, so they never overlap.
    """
    compute = 6 * found.macs * images / (UTILISATION * machine.peak)
    gradients, way = machine.all_reduce(4 * found.params, chips)
    small = sorted(one.bytes for one in found.collectives)[:-1]
    norms = sum(sum(machine.all_reduce(size, chips)) for size in small)
    return compute / (compute + gradients + way + norms), compute / (max(compute, gradients + way) + norms)


def main(out: Path, names: Sequence[str], scaling: bool, prediction: bool) -> None:
    """Writes the report."""
    rows: Rows = [
        ("network", "parameters", "collectives", "MB", "less gradients, KB", "grouped", "MB sent", "with --fsdp",
         "state MB", "with --fsdp"),
    ]  # fmt: skip
    sums: Rows = [("network", *(f"{count}, {what}" for count in COUNTS for what in ("MB", "MB sent")))]
    shares: Rows = [("network, batch norm, machine", *(f"{chips:,} chips" for chips in CHIPS))]
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        whole, parts = compiled(name), compiled(name, fully_sharded=True)
        grouped = compiled(name, PER_DEVICE) if whole.norms else None
        total = sum(one.bytes for one in whole.collectives)
        rows.append(
            (
                name,
                f"{whole.params:,}",
                f"{len(whole.collectives)}",
                f"{total / 1e6:,.1f}",
                f"{(total - 4 * whole.params) / 1e3:,.1f}",
                f"{len(grouped.collectives)}" if grouped else None,
                *(f"{sum(one.sent(DEVICES) for one in c.collectives) / 1e6:,.0f}" for c in (whole, parts)),
                *(f"{c.state / 1e6:,.0f}" for c in (whole, parts)),
            )
        )
        for kind, found in (("whole batch", whole), (f"groups of {PER_DEVICE}", grouped)):
            for machine in MACHINES if found else ():
                cells = [
                    "/".join(f"{share:.0%}" for share in predicted(machine, found, chips))
                    if machine.slices is None or chips in machine.slices
                    else "-"
                    for chips in CHIPS
                ]
                shares.append((f"{name}, {kind if whole.norms else 'none'}, {machine.name}", *cells))
        kinds = {"whole": whole, "fsdp": parts, "grouped": grouped}
        results[name] = {kind: of._asdict() | {"collectives": by_kind(of)} for kind, of in kinds.items() if of}
        if scaling:
            steps = {count: compiled(name, devices=count) if count < DEVICES else whole for count in COUNTS}
            results[name]["devices"] = {count: by_kind(step) for count, step in steps.items()}
            cells = []
            for count, step in steps.items():
                reduced = [one for one in step.collectives if one.kind == "all-reduce"]
                cells += [sum(one.bytes for one in reduced), sum(one.sent(count) for one in reduced)]
            sums.append((name, *(f"{value / 1e6:,.1f}" for value in cells)))
    made = {f"{DEVICES} devices": rows}
    if scaling:
        made["All-reduced in a step by 1 to 8 devices: MB of the results, MB that a device sends in a ring"] = sums
    if prediction:
        made[f"Predicted, {PER_DEVICE} images a chip: nothing overlaps / gradients overlap"] = shares
    write(out, "collectives", "What devices send each other in a training step", made, results)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("names", nargs="*", metavar="NETWORK", default=NETWORKS)
    parser.add_argument("--no-scaling", action="store_true")
    parser.add_argument("--no-prediction", action="store_true")
    options = parser.parse_args()
    # Before JAX is imported. Machine code is not what is looked at, so it is made in a hurry.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
    from cnn_jax.errors import UserError

    try:
        main(options.out, options.names, not options.no_scaling, not options.no_prediction)
    except UserError as error:
        parser.exit(2, f"collectives: {error}\n")
