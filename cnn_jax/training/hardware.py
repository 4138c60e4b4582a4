"""What the devices could do, and what they have in use."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

import jax

# Floating-point operations a second of one JAX device, dense, bfloat16 products summed in float32, by the vendors'
# data sheets. A TPU v2 or v3 device is one of the chip's two cores.
PEAKS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA H200": 989.5e12,
    "NVIDIA H100 80GB HBM3": 989.5e12,
    "NVIDIA H100 PCIe": 756.5e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA L4": 121e12,
    "Tesla V100-SXM2-16GB": 125e12,  # float16
    "Tesla T4": 65e12,  # float16
}


@dataclass(frozen=True)
class Hardware:
    """The devices of a run that does `flops()` floating-point operations an image, asked where a peak is known."""

    flops: Callable[[], int]

    def use(self, images_per_s: float) -> dict[str, float]:
        """`mfu`, the share of the devices' peak in [0, 1], if that is known, and `memory_gib`, the most that a device
        has had in use; on a CPU this process."""
        device, found = jax.local_devices()[0], {}
        if (peak := PEAKS.get(device.device_kind)) is not None:
            found["mfu"] = images_per_s * self.flops() / (peak * jax.device_count())
        most = (device.memory_stats() or {}).get("peak_bytes_in_use")
        if device.platform == "cpu":
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if most is not None:
            found["memory_gib"] = most / 2**30
        return found
