"""One device, eight and groups of batch norm: the same numbers. Devices are forced on the CPU."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, sys
from functools import partial
import flax.linen as nn
import jax, jax.numpy as jnp, numpy as np
from cnn_jax.errors import UserError
from cnn_jax.layers import BatchNorm, ConvBN, global_avg_pool
from cnn_jax.recipes import Optimizer, Schedule
from cnn_jax.training import sharding
from cnn_jax.training.optimizer import make_optimizer
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import cross_entropy, train_step

group_size = int(sys.argv[1]) or None

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        norm = partial(BatchNorm, group_size=group_size)
        x = ConvBN(8, 3, padding=1, norm=norm)(x, train=train)
        x = ConvBN(8, 3, stride=2, padding=1, norm=norm)(x, train=train)
        x = nn.Dropout(0.3, deterministic=not train)(global_avg_pool(x))
        return nn.Dense(10)(x)

mesh = sharding.data_mesh(32)
everywhere, split = sharding.replicated(mesh), sharding.split(mesh)
rng = np.random.default_rng(0)
data = {"image": rng.integers(0, 256, (100, 8, 8, 1), np.uint8), "label": rng.integers(0, 10, 100)}
data = jax.device_put(data, everywhere)
optimizer, _ = make_optimizer(Optimizer(lr=0.05), Schedule(kind="constant"), 1, 5)
variables = Net().init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
state = jax.device_put(TrainState.create(variables, optimizer, jax.random.key(1)), everywhere)

def noisy(images, key):
    return images / 255 + 0.1 * jax.random.normal(key, images.shape)

@jax.jit
def step(state, indices):
    batch = jax.lax.with_sharding_constraint({k: v[indices] for k, v in data.items()}, split)
    return train_step(state, batch, apply=Net().apply, optimizer=optimizer, loss=cross_entropy,
                      preprocess=noisy, num_classes=10, epoch_size=100)

losses = []
for t in range(5):
    state, metrics = step(state, jax.device_put(rng.permutation(100)[:32].astype(np.int32), split))
    losses.append(float(metrics["loss"]))
try:
    sharding.data_mesh(30); refused = ""
except UserError as error:
    refused = str(error)
leaves = jax.tree.leaves(state.variables)
print(json.dumps({"devices": jax.device_count(), "losses": losses, "refused": refused,
                  "values": [np.asarray(leaf).ravel().tolist() for leaf in leaves]}))
"""


def on_devices(devices: int, group_size: int) -> dict:
    env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(group_size)], capture_output=True, text=True, env=env, check=True
    )
    return json.loads(out.stdout)


@pytest.mark.parametrize("group_size", [0, 8])
def test_eight_devices_compute_what_one_computes(group_size):
    one, eight = on_devices(1, group_size), on_devices(8, group_size)
    assert (one["devices"], eight["devices"]) == (1, 8)
    np.testing.assert_allclose(one["losses"], eight["losses"], atol=2e-6)  # float32 sums in another order
    for a, b in zip(one["values"], eight["values"], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    assert one["refused"] == ""
    assert eight["refused"] == "--batch-size 30 does not divide over 8 devices; 24 would"
