"""One mesh, one axis: batches are split over `data`, everything else is on every device."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_jax.errors import UserError


def data_mesh(batch_size: int) -> Mesh:
    """All devices on one axis `data`.

    Raises:
      UserError: the batch does not divide by the number of devices.
    """
    devices = jax.device_count()
    if batch_size % devices:
        near = max(batch_size // devices, 1) * devices
        raise UserError(f"--batch-size {batch_size} does not divide over {devices} devices; {near} would")
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))
