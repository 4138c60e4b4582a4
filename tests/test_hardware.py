from types import SimpleNamespace

import jax
import pytest

from cnn_jax.training.hardware import Hardware


def test_use_of_known_devices(monkeypatch):
    """ResNet-50 at 2,500 images/s on an A100: 2,500 * 24.5e9 of 312e12 operations are 19.7 %."""
    device = SimpleNamespace(
        device_kind="NVIDIA A100-SXM4-40GB", platform="gpu", memory_stats=lambda: {"peak_bytes_in_use": 3 * 2**30}
    )
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    found = Hardware(lambda: 6 * 4_089_184_256).use(2500)
    assert found["mfu"] == pytest.approx(0.1966, abs=1e-4) and found["memory_gib"] == 3
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert Hardware(lambda: 6 * 4_089_184_256).use(10_000)["mfu"] == pytest.approx(0.1966, abs=1e-4)


def test_a_device_that_tells_nothing_has_no_figures(monkeypatch):
    device = SimpleNamespace(device_kind="abacus", platform="wood", memory_stats=lambda: None)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert Hardware(lambda: pytest.fail("a network was traced for nothing")).use(5.0) == {}


def test_on_a_cpu_memory_is_the_processs():
    found = Hardware(lambda: 10).use(5.0)
    assert set(found) == {"memory_gib"} and 0.05 < found["memory_gib"] < 64
