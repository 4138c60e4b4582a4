"""What the benchmarks stand on; their figures are made by running them."""

import io
import json
import subprocess
import sys

from conftest import ROOT
from PIL import Image

from benchmarks.contender import LEAD, compare
from benchmarks.photos import CLASSES, photo

CONTENDER = """
import sys, time
from benchmarks.contender import serve
def work(batches):
    time.sleep(batches * float(sys.argv[1]))
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


def test_contenders_are_timed_in_turn_without_what_they_made_ahead():
    commands = {name: (sys.executable, "-c", CONTENDER, seconds) for name, seconds in (("a", "0.01"), ("b", "0.005"))}
    table = compare(commands, rounds=3).splitlines()
    a, b = (line.split() for line in table[1:])
    assert a[0] == "a" and float(a[2]) == 1.0
    assert 1.3 < float(b[2]) < 2.3 and int(b[3]) > 1  # twice as fast, on a busy machine
    command = (sys.executable, "-c", CONTENDER, "0")
    done = subprocess.run(command, input="go\n", capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.split()[1::2] == [str(LEAD), str(LEAD), "20"]
    ready, result = done.stdout.splitlines()
    assert ready == "ready" and json.loads(result)["memory_mb"] > 1
