"""What the benchmarks stand on; their figures are made by running them."""

import io
import json
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from benchmarks import captioning, predict, runs
from benchmarks.collectives import MACHINES, Collective, Compiled, predicted, read_collectives
from benchmarks.contender import LEAD, compare, rate_rows
from benchmarks.photos import CLASSES, photo
from cnn_jax.data import fashion_5k, open_dataset
from cnn_jax.data.decode import BadImage, decode
from cnn_jax.data.folder import image_files, read_file

CONTENDER = """
import sys, time
from benchmarks.contender import serve
now = [0.0]
time.perf_counter = lambda: now[0]  # a clock of its own, whatever else this machine does
def work(batches):
    now[0] += batches * float(sys.argv[1])
    print("worked", batches, file=sys.stderr)
    return 10 * batches
serve(work, 20)
"""


def test_photos_cost_what_photographs_cost():
    found = [photo(index) for index in range(6)]
    assert found[2] == photo(2)  # a function of its number
    sizes = [Image.open(io.BytesIO(jpeg)).size for jpeg, _ in found]
    assert all(375 <= max(size) <= 500 and min(size) >= 333 for size in sizes)
    assert 70_000 < sum(len(jpeg) for jpeg, _ in found) / 6 < 150_000
    assert all(0 <= label < len(CLASSES) for _, label in found)


def test_every_so_many_photos_to_predict_are_broken(monkeypatch, tmp_path):
    monkeypatch.setattr(predict, "COUNT", 3)
    monkeypatch.setattr(predict, "BROKEN", 2)
    predict.prepare(tmp_path)
    for number, path in enumerate(image_files(str(tmp_path))):
        with pytest.raises(BadImage) if number in (0, 2) else nullcontext():
            decode(read_file(path), 3)


def test_contenders_are_timed_in_turn_without_what_they_made_ahead():
    commands = {name: (sys.executable, "-c", CONTENDER, seconds) for name, seconds in (("a", "0.01"), ("b", "0.005"))}
    found = compare(commands, rounds=3)
    _, a, b = rate_rows(found)
    assert a[:3] == ("a", "1,000", "1.00")
    assert b[:3] == ("b", "2,000", "2.00") and int(b[3]) > 1
    command = (sys.executable, "-c", CONTENDER, "0.01")
    done = subprocess.run(command, input="go\n", capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.split()[1::2] == [str(LEAD), str(LEAD), "20"]
    ready, result = done.stdout.splitlines()
    assert ready == "ready {}" and json.loads(result)["memory_mb"] > 1


HLO = """
  %p = f32[3,3,64,128]{2,1,0,3} parameter(0), sharding={devices=[1,1,1,8]<=[8]}
  %all-gather = f32[3,3,64,128]{2,1,0,3} all-gather(%p), channel_id=1, replica_groups=[1,8]<=[8], dimensions={3}
  %x = (f32[], /*index=1*/f32[512]{0}, s32[2]{0}) all-reduce(%a, %b, /*index=2*/%c), channel_id=2, to_apply=%add
  %s = (f32[10]{0:T(128)}, f32[10]{0}) all-reduce-start(%d), channel_id=3
  %r = bf16[4,8]{1,0} reduce-scatter(%e), dimensions={0}
  %fusion = f32[8]{0} fusion(%all-gather), metadata={op_name="all-reduce(x)"}
"""


def test_collectives_are_read_from_a_program_with_the_bytes_of_their_results():
    assert read_collectives(HLO) == [
        Collective("all-gather", 4 * 9 * 64 * 128),
        Collective("all-reduce", 4 + 4 * 512 + 8),
        Collective("all-reduce", 80),
        Collective("reduce-scatter", 64),
    ]


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("all-reduce", 1400.0), ("all-gather", 700.0), ("reduce-scatter", 5600.0), ("collective-permute", 800.0)],
)
def test_a_device_of_eight_in_a_ring_sends_its_share_again_and_again(kind, sent):
    """A result of 800 bytes: seven blocks of 100 are passed on, twice to reduce; scattered, seven of 800."""
    assert Collective(kind, 800).sent(8) == sent


def test_a_predicted_step_is_computing_plus_sending():
    v4, _, h100 = MACHINES
    found = Compiled([Collective("all-reduce", 4 * 10**6), *[Collective("all-reduce", 512)] * 10], 10**6, 5, 10**9, 0)
    compute = 6e9 * 32 / (0.4 * 275e12)
    gradients = 2 * 63 / 64 * 4e6 / (6 * 45e9) + 13e-6  # six links; 4 hops along each axis and a start
    norms = 10 * (2 * 63 / 64 * 512 / (6 * 45e9) + 13e-6)
    none, full = predicted(v4, found, 64)
    assert none == pytest.approx(compute / (compute + gradients + norms))
    assert full == pytest.approx(compute / (compute + norms))
    way, hops = h100.all_reduce(8e9, 16)  # two nodes: within them, then an eighth of the bytes between them
    assert way == pytest.approx(2 * 7 / 8 * 8e9 / 450e9 + 2 * 1 / 2 * 1e9 / 50e9)
    assert hops == pytest.approx(5e-6 + 2e-6 + 10e-6)


@pytest.mark.slow
def test_a_real_step_sends_its_gradients_and_the_sums_of_its_batch_norms(tmp_path):
    command = (sys.executable, "-m", "benchmarks.collectives", "resnet20_cifar", "--no-prediction", "--out", tmp_path)
    subprocess.run(command, capture_output=True, cwd=ROOT, check=True)
    lines = (tmp_path / "collectives.md").read_text().splitlines()
    row, scaling = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| resnet20"))
    name, params, count, total, rest, grouped, _, _, state, state_parts = row
    params, rest = int(params.replace(",", "")), 1e3 * float(rest)
    assert name == "resnet20_cifar" and params > 270_000
    channels = 7 * 16 + 6 * 32 + 6 * 64  # 19 layers
    assert 2 * 4 * channels < rest < 4 * 4 * channels  # forward a mean and a variance each, backward some more
    assert float(total) == pytest.approx(4e-6 * params, rel=0.1)
    assert 2 * 19 < int(count) < 5 * 19 and int(grouped) < 5
    assert int(state) == round(8e-6 * params) and int(state_parts) <= int(state)
    found = json.loads((tmp_path / "collectives.json").read_text())["results"]["resnet20_cifar"]
    assert found["devices"]["1"] == {} and found["devices"]["8"]["all-reduce"]["count"] == int(count)
    alone, eight = scaling[1:3], scaling[-2:]
    assert alone == ["0.0", "0.0"] and float(eight[0]) == float(total)
    sent = 2 * 7 / 8 * found["devices"]["8"]["all-reduce"]["bytes"] / 1e6
    assert float(eight[1]) == pytest.approx(sent, abs=0.051)  # one decimal is shown


def test_runs_are_made_once_and_spread_over_seeds(tmp_path, monkeypatch):
    ran = []

    def run(command, **options):
        ran.append(command)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "summary.json").write_text('{"test_top1": 0.5}')

    monkeypatch.setattr(runs.subprocess, "run", run)
    assert [runs.trained(tmp_path / "a", "--seed", "3") for _ in range(2)] == [{"test_top1": 0.5}] * 2
    (command,) = ran
    assert command[1:] == ["train.py", "--out", str(tmp_path / "a"), "--resume", "auto", "--seed", "3"]
    assert (runs.spread([0.25]), runs.spread([1, 3], 2)) == ("0.2", "2.00 ± 1.41")


def test_scenes_of_other_garments_are_read_as_karpathys_and_tested_on_the_same(tmp_path):
    grey = np.full((100, 28, 28, 1), 77, np.uint8), np.arange(100) % 10  # garments that none of the package looks like
    file = captioning.write_scenes(tmp_path, grey, 40)
    train, test = (open_dataset(f"karpathy:{file}", split) for split in ("train", "test"))
    own = open_dataset("composed_captions", "test")
    assert len(train) == 40 and len(test) == len(own) == 1000
    for image, _ in train.read(range(40)):
        assert np.count_nonzero(decode(image, 1) == 77) >= 28 * 28
    for (image, label), (scene, numbers) in zip(test.read(range(30)), own.read(range(30)), strict=True):
        np.testing.assert_array_equal(decode(image, 1), scene)
        known = [{own.classes[n] for n in row if n > 2} for row in numbers]
        assert all({test.classes[n] for n in row if n > 3} <= told for row, told in zip(label, known, strict=True))


def test_things_are_garments_and_digits_of_twenty_classes(tmp_path):
    captioning.write_things(tmp_path / "things.npz", fashion_5k.read_split("train"), copies=2)
    with np.load(tmp_path / "things.npz") as found:
        assert found["x_train"].shape == (12_000, 32, 32, 3) and found["x_test"].shape == (2_000, 32, 32, 3)
        assert set(found["y_test"]) == set(range(20))
        np.testing.assert_array_equal(found["x_test"][:1000, 2:-2, 2:-2, 1], fashion_5k.read_split("test")[0][..., 0])
