"""One mesh, one axis `data`: what is split over it and what is on every device."""

from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_jax.errors import UserError

SPLIT_FROM = 2**16  # values; what is smaller costs more to gather than to keep


def data_mesh(batch_size: int, accumulate: int = 1) -> Mesh:
    """All devices of all processes on one axis `data`, those of a process side by side.

    So a process decodes a run of neighbouring images, and groups of batch norm that fit into a host do
    not cross the network. jax.make_mesh may order a TPU's devices otherwise, along its torus; an
    all-reduce over all devices is the same in any order.

    Raises:
      UserError: the batch does not divide by the number of devices and of parts a step.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    share = len(devices) * accumulate
    if batch_size % share:
        near = max(batch_size // share, 1) * share
        parts = f" in {accumulate} parts" if accumulate > 1 else ""
        raise UserError(f"--batch-size {batch_size} does not divide over {len(devices)} devices{parts}; {near} would")
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def per_seed(mesh: Mesh) -> NamedSharding:
    """(seeds, B, ...) arrays: each seed's batch split over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


def state_shardings(mesh: Mesh, abstract_state: Any, fully_sharded: bool = False) -> Any:
    """Where each leaf of a state lies, as a tree of its structure; leaves have a `shape`.

    On every device; or, `fully_sharded`, those of SPLIT_FROM values on are split along their largest
    dimension that divides by the number of devices (the last of equals), parameters, optimiser's slots
    and moving averages alike: ZeRO's stage 3 (Rajbhandari 2019, 1910.02054). The compiler gathers what
    a layer needs, so the numbers stay the same but for the order of sums.
    """

    def place(leaf: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not fully_sharded or np.prod(leaf.shape) < SPLIT_FROM or not axes:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: (leaf.shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*(None,) * largest, "data"))

    return jax.tree.map(place, abstract_state)


def whole(tree: Any) -> Any:
    """The same tree with NumPy arrays, wherever its arrays lie. All processes call it together."""

    def gather(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(gather, tree)
