"""Paired benchmarks: each contender is a process that waits for a word, works and reports.

Rivals run this in environments of their own, and a contender's environment is to be the user's: no cnn_jax in here.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from statistics import geometric_mean, median
from typing import IO, Any, NamedTuple

LEAD = 10  # batches before the clock starts: what was made ahead while others worked, or lost, does not count
PATIENCE = 30  # seconds that a contender has to end by itself
Rows = list[tuple[str | None, ...]]


class Result(NamedTuple):
    """What a contender said when it was ready and in each round; no rounds, but a reason, if it failed."""

    facts: dict[str, Any]
    rounds: list[dict[str, float]]
    failure: str | None = None

    @property
    def images_per_s(self) -> float | None:
        """The median of the rounds."""
        return median(one["images_per_s"] for one in self.rounds) if self.rounds else None

    @property
    def memory_mb(self) -> float | None:
        """The peak."""
        return max(one["memory_mb"] for one in self.rounds) if self.rounds else None

    def ratio(self, other: "Result") -> float | None:
        """How many times as fast as another one: the median of each round's ratio."""
        pairs = zip(self.rounds, other.rounds, strict=False)  # one that failed has no rounds
        ratios = [own["images_per_s"] / its["images_per_s"] for own, its in pairs]
        return median(ratios) if ratios else None


def serve(
    work: Callable[[int], int],
    batches: int,
    *,
    lead: int = LEAD,
    memory: Callable[[], float] | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Says "ready" with `facts`; then times `work(batches)` for each line on stdin, after `work(lead)`.

    `work` returns how many images it made. The answers are lines of JSON, {"images_per_s": float, "memory_mb":
    what `memory` says, by default the peak resident memory of this process and its children}.
    """
    work(lead)
    print("ready", json.dumps(facts or {}), flush=True)
    for _ in sys.stdin:
        work(lead)
        start = time.perf_counter()
        images = work(batches)
        seconds = time.perf_counter() - start
        used = memory_mb(os.getpid()) if memory is None else memory()
        print(json.dumps({"images_per_s": images / seconds, "memory_mb": used}), flush=True)


def serve_for(seconds: float, work: Callable[[int], int], **options: Any) -> None:
    """`serve` with as many batches a round as take about `seconds`. `work` has been called before."""
    start = time.perf_counter()
    work(1)
    batches = max(1, round(seconds / (time.perf_counter() - start)))
    serve(work, batches, lead=1, **options)


def memory_mb(pid: int, children: bool = True) -> float:
    """Peak resident memory of a process and of its living children, in MB of 10**6 bytes (Linux)."""
    total = 0.0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            total += int(line.split()[1]) * 1024 / 1e6
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if children else ()
    return total + sum(memory_mb(int(child)) for child in below)


def versions(*packages: str) -> dict[str, str]:
    """Versions of what is installed of `packages`."""
    found = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def compare(commands: dict[str, Sequence[str]], rounds: int, limit: float | None = None) -> dict[str, Result]:
    """Runs contenders in turn, `rounds` times after a round that warms up.

    Each command runs `serve`. One that fails, or is not ready within `limit` seconds, is out of the turns: its
    result says why.
    """
    found: dict[str, Result] = {}
    with contextlib.ExitStack() as ending:
        processes = {}
        for name, command in commands.items():
            print(f"starting {name}", file=sys.stderr)
            processes[name] = ending.enter_context(_running(command))
            found[name] = processes[name].started(limit)
        for number in range(rounds + 1):
            for name, process in processes.items():
                if found[name].failure is None:
                    answer = process.asked()
                    if isinstance(answer, str):
                        found[name] = Result(found[name].facts, [], answer)
                    elif number:
                        found[name].rounds.append(answer)
            print(f"round {number} of {rounds}", file=sys.stderr)
    for name, result in found.items():
        if result.failure:
            print(f"{name}: {result.failure}", file=sys.stderr)
    return found


class _Process:
    """A contender."""

    def __init__(self, process: subprocess.Popen, errors: IO[str]):
        self._process, self._errors = process, errors

    def started(self, limit: float | None) -> Result:
        """What it says of itself when it is ready."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self.kill()

        timer = threading.Timer(limit or threading.TIMEOUT_MAX, end)
        timer.daemon = True
        timer.start()
        while not (line := self._process.stdout.readline()).startswith("ready"):
            if not line:
                timer.cancel()
                return Result({}, [], f"not ready within {limit:g} s" if late.is_set() else self._last_words())
        timer.cancel()
        return Result(json.loads(line.removeprefix("ready").strip() or "{}"), [])

    def asked(self) -> dict[str, float] | str:
        """A round's answer, or why there is none."""
        with contextlib.suppress(BrokenPipeError):
            print("go", file=self._process.stdin, flush=True)
        return json.loads(line) if (line := self._process.stdout.readline()) else self._last_words()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return said[-1][:300] if said else f"ended with {code}"

    def kill(self) -> None:
        """Ends it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[_Process]:
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,  # a group of its own, to be ended together
        ) as process,
    ):
        contender = _Process(process, errors)
        try:
            yield contender
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # which ends it
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            contender.kill()


def rate_rows(found: dict[str, Result]) -> Rows:
    """A row for each contender: images/s, how many times as fast as the first, memory."""
    first = next(iter(found.values()))
    rows: Rows = [("", "images/s", "ratio", "memory MB")]
    for name, result in found.items():
        rows.append(
            (name, shown(result.images_per_s, ",.0f"), shown(result.ratio(first)), shown(result.memory_mb, ",.0f"))
        )
    return rows


def speed_rows(found: dict[str, dict[str, Result]], label: str) -> Rows:
    """A row for each of `found`: each contender's ms an image, and how many times as fast as each the first one is.

    The last row has the geometric means of these ratios, over the rows that have one.
    """
    first, *others = next(iter(found.values()))
    rows: Rows = [(label, *(f"{name}, ms/image" for name in (first, *others)), *(f"to {name}" for name in others))]
    columns: dict[str, list[float]] = {name: [] for name in others}
    for name, results in found.items():
        ratios = {other: results[first].ratio(results[other]) for other in others}
        for other, ratio in ratios.items():
            columns[other] += [ratio] if ratio is not None else []
        speeds = (result.images_per_s for result in results.values())
        rows.append((name, *(shown(speed and 1e3 / speed, ".4g") for speed in speeds), *map(shown, ratios.values())))
    means = (geometric_mean(column) if column else None for column in columns.values())
    rows.append(("geometric mean", *(None for _ in (first, *others)), *map(shown, means)))
    return rows


def fact_rows(found: dict[str, dict[str, Result]], label: str, fact: Callable[[Result], str | None]) -> Rows:
    """A row for each of `found` with something that contenders told, a column for each."""
    rows: Rows = [(label, *next(iter(found.values())))]
    return rows + [(name, *map(fact, results.values())) for name, results in found.items()]


def failures(found: dict[str, dict[str, Result]]) -> list[str]:
    """Sentences on those that have no figures, and on networks that are not the same on all sides."""
    told = []
    for name, results in found.items():
        told += [f"{name}, {kind}: {result.failure}" for kind, result in results.items() if result.failure]
        sizes = {kind: r.facts["parameters"] for kind, r in results.items() if "parameters" in r.facts}
        if len(set(sizes.values())) > 1:
            told.append(f"{name}: not the same network: {sizes} parameters")
    return told


def all_versions(found: dict[str, dict[str, Result]]) -> dict[str, str]:
    """Those of the packages of all contenders."""
    merged: dict[str, str] = {}
    for results in found.values():
        for result in results.values():
            merged |= result.facts.get("versions", {})
    return merged


def shown(value: float | None, form: str = ".2f") -> str | None:
    """A number as text; None and NaN stay empty."""
    return None if value is None or math.isnan(value) else format(value, form)
