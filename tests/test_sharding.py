"""One device, eight, and one in each of two processes: the same numbers. Devices are forced on the CPU."""

import json

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P
from loopback import run_script
from runs import made_once

from cnn_jax import sharding

SCRIPT = """
import json, os, sys
from functools import partial
import flax.linen as nn
from cnn_jax.errors import UserError
from cnn_jax import distributed
address, processes, process = sys.argv[1], *map(int, sys.argv[2:4])
if processes > 1:
    distributed.start(address, processes, process)
import jax, jax.numpy as jnp, numpy as np
from cnn_jax.layers import BatchNorm, ConvBN
from cnn_jax.data.order import Timeline
from cnn_jax.recipes import Optimizer, Recipe, Schedule
from cnn_jax import sharding
from cnn_jax.training.program import Program
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import train_step

class Net(nn.Module):
    group_size: int

    @nn.compact
    def __call__(self, x, *, train):
        norm = partial(BatchNorm, group_size=self.group_size or None)
        x = ConvBN(8, 3, padding=1, norm=norm)(x, train=train)
        x = ConvBN(8, 3, stride=2, padding=1, norm=norm)(x, train=train)
        x = nn.relu(nn.Dense(512)(x.reshape(len(x), -1)))  # 128 x 512, just large enough to be split
        return nn.Dense(10)(nn.Dropout(0.3, deterministic=not train)(x))

def noisy(images, key):
    return images / 255 + 0.1 * jax.random.normal(key, images.shape)

def trained(mesh, group_size, fully_sharded):
    everywhere, split, net = sharding.replicated(mesh), sharding.split(mesh), Net(group_size)
    moves = Optimizer(lr=0.05, momentum=0.9, weight_decay=1e-3, ema=0.99)
    config = Recipe(model="lenet5_modern", optimizer=moves, schedule=Schedule(kind="constant"))
    program = Program(config, Timeline(100, 32, 1), classes=10, channels=1)
    vars(program)["apply"], vars(program.task)["preprocess"] = net.apply, noisy  # in place of what is cached

    def init():
        variables = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
        return TrainState.create(variables, program.optimizer, jax.random.key(1), ema=True)

    places = sharding.state_shardings(mesh, jax.eval_shape(init), fully_sharded)
    state = jax.jit(init, out_shardings=places)()
    step = jax.jit(partial(train_step, program), donate_argnums=0, out_shardings=(places, everywhere))
    rng, losses = np.random.default_rng(0), []
    for t in range(5):
        batch = {"image": rng.integers(0, 256, (32, 8, 8, 1), np.uint8), "label": rng.integers(0, 10, 32)}
        batch = {k: jax.make_array_from_process_local_data(split, v, v.shape) for k, v in batch.items()}
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    parts = [leaf.addressable_data(0).shape for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated]
    found = sharding.whole({"variables": state.variables, "ema": state.ema, "opt_state": state.opt_state})
    return {"losses": losses, "parts": parts, "values": [leaf.ravel().tolist() for leaf in jax.tree.leaves(found)]}

devices = jax.devices()
jax.devices = lambda: devices[::-1]  # an order as a TPU may have it
mesh = sharding.data_mesh(32)
refused = []
for size, accumulate in ((30, 1), (40, 3), (5, 1)):
    try:
        sharding.data_mesh(size, accumulate)
    except UserError as error:
        refused.append(str(error))
cases = {"global": (0, False), "grouped": (8, False), "in parts": (0, True)}
print(json.dumps({"devices": [device.id for device in mesh.devices], "refused": refused} |
                 {name: trained(mesh, *case) for name, case in cases.items()}))
sys.stdout.flush()
distributed.leave(0)
os._exit(0)
"""


def on_devices(devices: int, processes: int = 1) -> list[dict]:
    """What each process found; gloo speaks on stdout, too."""
    ended = run_script(SCRIPT, processes, devices // processes)
    assert [end.code for end in ended] == [0] * processes, ended
    return [json.loads(end.stdout.splitlines()[-1]) for end in ended]


def found_once(factory, devices: int, processes: int = 1) -> list[dict]:
    def make(folder):
        (folder / "found.json").write_text(json.dumps(on_devices(devices, processes)))

    return json.loads((made_once(factory, f"on-{devices}-of-{processes}", make) / "found.json").read_text())


@pytest.fixture(scope="session")
def one(tmp_path_factory):
    return found_once(tmp_path_factory, 1)[0]


@pytest.fixture(scope="session")
def eight(tmp_path_factory):
    return found_once(tmp_path_factory, 8)[0]


@pytest.fixture(scope="session")
def two(tmp_path_factory):
    """Of two processes with a device each, what both found."""
    return found_once(tmp_path_factory, 2, processes=2)


def compare(one: dict, many: dict) -> None:
    """Losses of five steps; parameters, statistics, momentum and averages after them."""
    assert abs(one["losses"][0] - one["losses"][4]) > 0.01
    np.testing.assert_allclose(one["losses"], many["losses"], atol=1e-6)  # float32 sums in another order
    for a, b in zip(one["values"], many["values"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("batch_norm", ["global", "grouped"])
def test_eight_devices_compute_what_one_computes(one, eight, batch_norm):
    assert (len(one["devices"]), len(eight["devices"])) == (1, 8)
    assert one[batch_norm]["parts"] == eight[batch_norm]["parts"] == []
    compare(one[batch_norm], eight[batch_norm])


@pytest.mark.parametrize("batch_norm", ["global", "grouped"])
def test_two_processes_compute_what_one_computes(one, two, batch_norm):
    for process in two:
        compare(one[batch_norm], process[batch_norm])


def test_groups_of_batch_norm_change_the_numbers(one):
    differences = np.subtract(one["global"]["losses"], one["grouped"]["losses"])
    assert np.abs(differences).max() > 1e-4


def test_a_state_in_parts_gives_the_same_numbers(one, eight, two):
    """In parts are a kernel, its momentum and its average; `whole` gathers them in every process."""
    assert eight["in parts"]["parts"] == [[128, 64]] * 3
    assert [process["in parts"]["parts"] for process in two] == [[[128, 256]] * 3] * 2
    for found in (eight, *two):
        compare(one["global"], found["in parts"])


def test_devices_stand_in_the_order_of_their_processes(eight, two):
    assert eight["devices"] == list(range(8))
    first, second = two[0]["devices"]
    assert first < second and two[1]["devices"] == [first, second]


def test_a_batch_that_does_not_divide_is_refused_early(one, eight):
    assert one["refused"] == ["--batch-size 40 does not divide over 1 devices in 3 parts; 39 would"]
    assert eight["refused"] == [
        "--batch-size 30 does not divide over 8 devices; 24 would",
        "--batch-size 40 does not divide over 8 devices in 3 parts; 24 would",
        "--batch-size 5 does not divide over 8 devices; 8 would",
    ]


def test_large_leaves_are_split_along_their_largest_dimension_that_divides():
    mesh = AbstractMesh((8,), ("data",))
    shapes = {
        "fc6": (7, 7, 512, 4096),
        "head": (4096, 1000),
        "of 1003 classes": (4096, 1003),
        "small": (255, 256),
        "just": (256, 256),
        "odd": (513, 513),
        "bias": (4096,),
    }
    abstract = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    found = {name: place.spec for name, place in sharding.state_shardings(mesh, abstract, True).items()}
    assert found == {
        "fc6": P(None, None, None, "data"),
        "head": P("data"),
        "of 1003 classes": P("data"),
        "small": P(),
        "just": P(None, "data"),
        "odd": P(),
        "bias": P(),
    }
    assert set(sharding.state_shardings(mesh, abstract, False).values()) == {NamedSharding(mesh, P())}
