"""Every image once: any batch, any shapes, bad images, one device and eight, one process and two."""

import io
import json
import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from in_memory import dataset
from PIL import Image

from cnn_jax import UserError
from cnn_jax.data.loaders import Batch
from cnn_jax.data.order import evaluation_order
from cnn_jax.evaluation import evaluate, evaluate_dataset, make_protocol, predict

RNG = np.random.default_rng(0)
NORM = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.mark.parametrize("batch_size", [1, 8, 64, 2000])
def test_every_image_counts_once_whatever_the_batch(batch_size):
    per_image = {"loss": RNG.random(1003), "top1": RNG.random(1003) < 0.7}
    rows, mask = evaluation_order(1003, batch_size)
    per_image["good"] = np.ones(1003, bool)
    batches = map(Batch, rows, mask, rows)
    records = evaluate(lambda row: {key: values[row] for key, values in per_image.items()}, batches)
    assert set(records) == {"loss", "top1", "index"}
    per_image["index"] = np.arange(1003)
    for key, values in records.items():
        np.testing.assert_array_equal(values, per_image[key])


def test_what_a_step_calls_not_good_does_not_count():
    rows, mask = evaluation_order(10, 4)
    records = evaluate(lambda row: {"loss": row, "good": row % 3 != 1}, map(Batch, rows, mask, rows))
    assert records["loss"].tolist() == records["index"].tolist() == [0, 2, 3, 5, 6, 8, 9]


def linear(variables, images, *, train):
    """Logits of a mean pixel, and of where it is bright."""
    assert not train
    left = images[:, :, : images.shape[2] // 2].mean((1, 2))
    return jnp.concatenate([images.mean((1, 2)), left], -1) @ variables["kernel"]


VARIABLES = {"kernel": RNG.standard_normal((6, 10)).astype(np.float32)}


def encoded(pixels, kind):
    """As a file, or as it is."""
    if kind == "pixels":
        return pixels
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def pictures(count):
    """Images of many sizes, as files and as pixels, with labels."""
    kinds = ("jpeg", "png", "pixels")
    sizes = RNG.permutation([(40, 60), (60, 40), (50, 50), (20, 79)] * count)[:count]
    pixels = [np.kron(RNG.integers(0, 256, (4, 4, 3)), np.ones((20, 20, 1))).astype(np.uint8)[:h, :w] for h, w in sizes]
    return [encoded(p, kinds[i % 3]) for i, p in enumerate(pixels)], RNG.integers(0, 10, count)


def run(images, protocol, batch_size=16, bad_images="error"):
    how = make_protocol(protocol, 64, 73, "bilinear")
    step = partial(predict, apply=linear, protocol=how, **NORM)
    options = {"channels": 3, "batch_size": batch_size, "bad_images": bad_images}
    return evaluate_dataset(jax.jit(step), VARIABLES, images, how, **options), how, step


@pytest.mark.parametrize("protocol", ["center", "ten_crop", "googlenet_144", "dense", "multi_scale"])
def test_images_of_many_sizes_are_seen_once_each_and_in_order(protocol):
    files, labels = pictures(23)
    records, how, step = run(dataset(files, labels), protocol)
    assert records["index"].tolist() == list(range(23)) and records["label"].tolist() == labels.tolist()
    for i in (0, 7, 22):
        pixels = files[i] if i % 3 == 2 else np.asarray(Image.open(io.BytesIO(files[i])))
        alone = step(VARIABLES, [group[None] for group in how.views(pixels)], labels[i : i + 1])
        np.testing.assert_allclose(records["loss"][i], alone["loss"][0], rtol=1e-4)  # float32, another order
        assert records["guess"][i] == alone["guess"][0]


def test_a_step_takes_no_more_than_the_batch():
    files, labels = pictures(40)
    how = make_protocol("multi_scale_jittered", 64, 73, "bilinear")
    step = jax.jit(partial(predict, apply=linear, protocol=how, **NORM))
    seen = []

    def spy(variables, views, labels):
        seen.append(sum(group[..., 0].size for group in views))
        return step(variables, views, labels)

    evaluate_dataset(spy, VARIABLES, dataset(files, labels), how, channels=3, batch_size=100)
    assert len(seen) > 1 and max(seen) <= 100 * 64 * 64 / 2  # the mirror images are made on the device


BAD = [b"", b"no image", encoded(np.zeros((30, 30, 3), np.uint8), "jpeg")[:300]]


@pytest.mark.parametrize("bad", BAD, ids=["empty", "text", "cut"])
def test_a_bad_image_is_told_with_its_place(bad):
    files, labels = pictures(9)
    files[4] = bad
    with pytest.raises(UserError) as error:
        run(dataset(files, labels), "center")
    assert re.fullmatch("record 4 of memory is .*; --bad-images skip goes on without such images", str(error.value))


def test_bad_images_are_left_out_and_told(capsys):
    files, labels = pictures(20)
    whole, *_ = run(dataset(files, labels), "center")
    files[0], files[13], files[19] = BAD
    records, *_ = run(dataset(files, labels), "center", bad_images="skip")
    kept = [i for i in range(20) if i not in (0, 13, 19)]
    assert records["index"].tolist() == kept
    np.testing.assert_allclose(records["loss"], whole["loss"][kept], rtol=1e-5)
    told = capsys.readouterr().err
    assert [f"record {i} of memory is " in told for i in (0, 13, 19, 5)] == [True] * 3 + [False]
    with pytest.raises(UserError, match="no image of things test can be evaluated"):
        run(dataset(BAD, [0, 1, 2]), "center", bad_images="skip")


SCRIPT = """
import json, sys
from functools import partial
import jax, numpy as np
process, processes, port = map(int, sys.argv[1:4])
if processes > 1:
    jax.distributed.initialize(f"localhost:{port}", processes, process)
import flax.linen as nn, jax.numpy as jnp
from in_memory import dataset
from cnn_jax.data.loaders import Batch
from cnn_jax.data.order import evaluation_order
from cnn_jax.evaluation import evaluate, evaluate_dataset, make_protocol, predict, predictions, summarize
from cnn_jax.layers import ConvBN, global_avg_pool
from cnn_jax.sharding import data_mesh, replicated, split

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(10)(global_avg_pool(ConvBN(8, 3, padding=1)(x, train=train)))

rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (1003, 9, 9, 3), np.uint8), rng.integers(0, 10, 1003).astype(np.int32)
mesh = data_mesh(64)
variables = jax.jit(lambda: Net().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False),
                    out_shardings=replicated(mesh))()
found = {}

# On the devices, a batch over all of them, as train.py does.
def put(values, sharding):
    return jax.make_array_from_callback(values.shape, sharding, lambda place: values[place])

data = put(images, replicated(mesh)), put(labels, replicated(mesh))

@partial(jax.jit, out_shardings=replicated(mesh))
def step(variables, data, indices):
    image, label = (jax.lax.with_sharding_constraint(values[indices], split(mesh)) for values in data)
    return predictions(Net().apply(variables, image / 255, train=False), label) | {"good": indices >= 0}

rows, mask = evaluation_order(1003, 64)
batches = map(Batch, rows, mask, rows)
found["shared"] = evaluate(lambda row: step(variables, data, put(row, split(mesh))), batches)

# From the host, each process its share; images of two shapes, views of another.
several = [image if i % 3 else image[:, :7] for i, image in enumerate(images)]
for name, protocol in (("center", "center"), ("ten", "ten_crop"), ("dense", "dense")):
    how = make_protocol(protocol, 8, 32 if protocol == "dense" else 10, "bilinear")
    predict_step = jax.jit(partial(predict, apply=Net().apply, protocol=how, mean=(0.5,) * 3, std=(0.25,) * 3))
    found[name] = evaluate_dataset(predict_step, variables, dataset(several, labels), how, channels=3, batch_size=64)
json.dump({"devices": jax.device_count(), "processes": jax.process_count(), "found": {
    name: summarize(records) | {key: records[key].tolist() for key in records} for name, records in found.items()}},
    open(sys.argv[4], "w"))
"""


def on_devices(folder: Path, devices: int, processes: int = 1) -> list[dict]:
    """What each process found."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices // processes}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    files = [folder / f"{devices}-{process}.json" for process in range(processes)]
    started = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(i), str(processes), str(port), file], env=env)
        for i, file in enumerate(files)
    ]
    try:
        assert [process.wait(timeout=120) for process in started] == [0] * processes
    finally:
        for process in started:
            process.kill()
    return [json.loads(file.read_text()) for file in files]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return on_devices(tmp_path_factory.mktemp("one"), 1)[0]


@pytest.mark.parametrize(("devices", "processes"), [pytest.param(8, 1, marks=pytest.mark.slow), (4, 2)])
def test_devices_and_processes_make_no_difference(one, tmp_path, devices, processes):
    """1,003 images, batch 64: 15 whole batches and 43 images."""
    assert (one["devices"], one["processes"]) == (1, 1)
    for many in on_devices(tmp_path, devices, processes):
        assert (many["devices"], many["processes"]) == (devices, processes)
        for name, expected in one["found"].items():
            records = many["found"][name]
            assert records["test_count"] == len(records["loss"]) == 1003
            assert records["index"] == list(range(1003))
            for key in ("guess", "top1", "top5", "test_top1", "test_top5"):
                assert records[key] == expected[key], (name, key)
            np.testing.assert_allclose(records["loss"], expected["loss"], rtol=1e-5)  # float32, other batches
