"""What a benchmark found, as a table on the screen, NAME.md for people and NAME.json for programs.

All say when, on which machine, with which versions and by which command. No cnn_jax in here: importing it changes
XLA_FLAGS, and the contenders are to start from the user's own.
"""

import argparse
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.contender import Result, Rows, cores, failures, rate_rows, versions
from benchmarks.networks import ROOT

PACKAGES = ("cnn-jax", "jax", "jaxlib", "flax", "optax", "numpy", "onednn-cpu-gomp")


def machine() -> dict[str, Any]:
    """The processor: `cpu`, its `cores` that this process may use, whether it has `avx2` and `avx512`."""
    known = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        known.setdefault(name.strip(), value.strip())
    flags = known.get("flags", "").split()
    return {
        "cpu": known.get("model name", "unknown"),
        "cores": cores(),
        "avx2": "avx2" in flags,
        "avx512": "avx512f" in flags,
    }


def processor(found: dict[str, Any]) -> str:
    """Of a `machine`, in words: its name, and the instructions for vectors that decide how it rounds."""
    return f"{found['cpu']} with {'AVX-512' if found['avx512'] else 'AVX2' if found['avx2'] else 'SSE'}"


def command_line(description: str) -> argparse.ArgumentParser:
    """One with --out, for a benchmark that `write`s."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks", help="folder of both files")
    return made


def write(
    out: Path,
    name: str,
    title: str,
    tables: dict[str, Rows],
    results: Any,
    *,
    used: dict[str, str] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Writes `out`/NAME.json and .md and prints the tables, each under its heading ("" for none).

    `results` is what the tables were made of, any JSON. `used` are versions, by default those here.
    """
    said = {
        "benchmark": name,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "commit": commit(),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | (versions(*PACKAGES) if used is None else used),
        "notes": list(notes),
    }
    found = said["machine"]
    vectors = ", ".join(
        f"{text} {'yes' if found[key] else 'no'}" for key, text in (("avx2", "AVX2"), ("avx512", "AVX-512"))
    )
    lines = [
        f"# {title}",
        "",
        f"{said['date']}, commit {said['commit']}. {found['cpu']}, {found['cores']} cores, {vectors}.",
        f"{', '.join(f'{package} {version}' for package, version in said['versions'].items())}.",
        "",
        f"    {said['command']}",
    ]
    for heading, rows in tables.items():
        lines += ["", *([f"## {heading}", ""] if heading else []), markdown(rows)]
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    text = "\n".join(lines) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text)
    (out / f"{name}.json").write_text(json.dumps(said | {"results": results}, indent=1) + "\n")
    print(text)
    print(f"written: {out / name}.md and .json", file=sys.stderr)


def write_rates(out: Path, name: str, title: str, found: dict[str, Result]) -> None:
    """`write` for contenders that make images: how many a second, beside the first one's."""
    results = {kind: result._asdict() for kind, result in found.items()}
    write(out, name, title, {"": rate_rows(found)}, results, notes=failures({name: found}))


def markdown(rows: Rows) -> str:
    """A table in Markdown that reads well as plain text, too; its first column is text, the others are figures."""
    table = [["-" if cell is None else cell for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(table[0]), line(rule), *map(line, table[1:])])


def commit() -> str:
    """What this checkout is at, with "-dirty" where files that git knows were changed."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
