"""Paired benchmarks: each contender is a process that waits for a word, works and reports."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

LEAD = 10  # batches before the clock starts: what was made ahead while others worked does not count


def serve(work: Callable[[int], int], batches: int) -> None:
    """For each line on stdin times `work(batches)`, which returns how many images it made, and prints a line of JSON.

    {"images_per_s": float, "memory_mb": peak resident memory of this process and its children}
    """
    work(LEAD)
    print("ready", flush=True)
    for _ in sys.stdin:
        work(LEAD)
        start = time.perf_counter()
        images = work(batches)
        seconds = time.perf_counter() - start
        print(json.dumps({"images_per_s": images / seconds, "memory_mb": memory_mb(os.getpid())}), flush=True)


def memory_mb(pid: int) -> float:
    """Peak resident memory of a process and of its living children, in MB of 10**6 bytes (Linux)."""
    total = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            total += int(line.split()[1]) * 1024 / 1e6
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return total + sum(memory_mb(int(child)) for child in children)


def compare(commands: dict[str, Sequence[str]], rounds: int) -> str:
    """Runs contenders in turn, `rounds` times after a round that warms up; a table of medians.

    Each command runs `serve`. Ratios are medians of each round's ratio to the first contender.
    """
    from cnn_jax.tables import aligned  # rivals have other environments

    processes = {name: _started(name, command) for name, command in commands.items()}
    found: dict[str, list[dict]] = {name: [] for name in commands}
    try:
        for number in range(rounds + 1):
            for name, process in processes.items():
                print("go", file=process.stdin, flush=True)
                if not (line := process.stdout.readline()):
                    sys.exit(f"{name} ended in round {number}")
                if number:
                    found[name].append(json.loads(line))
            print(f"round {number} of {rounds}", file=sys.stderr)
    finally:
        for process in processes.values():
            process.stdin.close()  # which ends them
            process.wait()
    first = [result["images_per_s"] for result in next(iter(found.values()))]
    rows = [("", "images/s", "ratio", "memory MB")]
    for name, results in found.items():
        speeds = [result["images_per_s"] for result in results]
        ratio = median(speed / one for speed, one in zip(speeds, first, strict=True))
        memory = max(result["memory_mb"] for result in results)
        rows.append((name, f"{median(speeds):,.0f}", f"{ratio:.2f}", f"{memory:,.0f}"))
    return aligned(rows)


def _started(name: str, command: Sequence[str]) -> subprocess.Popen:
    print(f"starting {name}", file=sys.stderr)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
    )
    while (line := process.stdout.readline()) != "ready\n":
        if not line:
            sys.exit(f"{name} did not start: {' '.join(command)}")
    return process
