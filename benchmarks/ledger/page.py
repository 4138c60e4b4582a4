"""docs/reproduction.md and its pictures, from results/ alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure as Picture
from matplotlib.ticker import LogLocator

from benchmarks.ledger.claims import ROWS, Row
from benchmarks.ledger.counts import COUNTS
from benchmarks.ledger.notes import NOTES
from benchmarks.ledger.results import multiply_adds, side
from benchmarks.ledger.runs import RUNS
from benchmarks.networks import ROOT
from benchmarks.report import Rows, markdown, processor
from benchmarks.runs import spread
from cnn_jax.atomic import write_whole
from cnn_jax.recipes import Recipe
from cnn_jax.visualize.figure import save

PAGE = ROOT / "docs" / "reproduction.md"
PUBLISHED = "published"
PICTURES = ROOT / "docs" / "images" / "reproduction"
HEAD = """# The reproduction ledger

What papers claim, run again at a size that two cores have, with what came out; claims that failed stay. Written by
`uv run python -m benchmarks.ledger` from `results/`, where each run's figures, curve, digest, command, commit and
processor stand.

The papers' networks learned CIFAR-10 and ImageNet for days. Here they are small, and learn a part of Fashion-MNIST for
minutes; a row's recipes, in `benchmarks/ledger/runs.py`, say how much. So a claim that fails here is not refuted: it
does not show at this size.

A claim is **reproduced** if each difference that it names has its sign and its mean over seeds, with the same seed on
both sides, is more than twice its standard error: no high bar with three seeds. Figures are means and standard
deviations (n - 1). A run whose numbers are no longer finite is ended by `train.py`, and counts as chance, 90 % wrong.

    uv run python -m benchmarks.ledger --data-dir DIR --row relu-tanh            # one row, if its runs are not there
    uv run python -m benchmarks.ledger --data-dir DIR --row relu-tanh --check    # again, its digests compared

Digests are the same where processors round alike: what was made with AVX2 alone ends with other bits where there is
AVX-512. A section's last line says which it was; `--check` says so where they differ.

DIR has Fashion-MNIST as `cnn-jax prepare fashion_mnist --data-dir DIR` leaves it; `--dataset FILE.npz` does too.
"""


@dataclass(frozen=True)
class Difference:
    """By how much the second arm's figure is above the first one's, per seed."""

    first: str
    second: str
    values: tuple[float, ...]

    @property
    def error(self) -> float:
        """Of the mean; not a number if a run never got there."""
        if not all(map(isfinite, self.values)):
            return nan
        return stdev(self.values) / sqrt(len(self.values))

    @property
    def holds(self) -> bool:
        """Whether it has the claim's sign, by more than twice its standard error; a published figure is to be met."""
        return mean(self.values) >= (0 if self.second == PUBLISHED else 2 * self.error)

    def __str__(self) -> str:
        found = f"{mean(self.values):+.2f} ± {self.error:.2f}" if all(map(isfinite, self.values)) else "not reached"
        if self.holds:
            doubt = ""
        elif self.second == PUBLISHED:
            doubt = " (not met)"
        else:
            doubt = " (the other way round)" if mean(self.values) <= -2 * self.error else " (not clear)"
        return f"{self.second} - {self.first}: {found}{doubt}"


def differences(row: Row, results: dict[str, list[dict[str, Any]]]) -> list[Difference]:
    """Those that a row's claim names; `results` are of its runs, seed by seed."""
    found = []
    for first, second in row.lower:
        values = [
            row.value(second, b) - row.value(first, a)
            for a, b in zip(results[row.run_of(first)], results[row.run_of(second)], strict=True)
        ]
        found.append(Difference(first, second, tuple(values)))
    for arm, error in row.published.items():
        values = [error - row.value(arm, run) for run in results[row.run_of(arm)]]
        found.append(Difference(arm, PUBLISHED, tuple(values)))
    return found


def verdict(found: Sequence[Difference]) -> str:
    """What to say of a claim whose runs are all there."""
    good = sum(one.holds for one in found)
    if good == len(found):
        return "reproduced"
    return f"in part ({good} of {len(found)})" if good else "not reproduced"


def _flop(recipe: Recipe) -> float:
    """Floating-point operations of a run on all 60,000 images: a step is three forward passes."""
    return 6 * multiply_adds(recipe) * 60_000 * recipe.epochs


def write_page(results: Path) -> None:
    """Writes the page and a picture for each row whose runs are all there."""
    lines = [HEAD]
    summary: list[Sequence[str]] = [("claim", "what came out", "verdict", "seeds", "core minutes")]
    sections = []
    for row in ROWS:
        runs = {one: one.read(results) for one in row.wanted()}
        if not all(runs.values()):
            why = "not run yet"
            if row.gpu:
                work = row.seeds * sum(_flop(RUNS[row.run_of(arm)]) for arm in row.arms) / 1e15
                why = f"not run here: {work:,.0f} PFLOP, for a GPU (`benchmarks/ledger_gpu.sh`)"
            summary.append((f"{row.claim} ({row.source})", "-", why, "-", "-"))
            continue
        by_run: dict[str, list[dict[str, Any]]] = {}
        for one, found in runs.items():
            by_run.setdefault(one.run, []).append(found)
        told = differences(row, by_run)
        minutes = sum(found["minutes"] for found in runs.values())
        summary.append(
            (
                f"[{row.claim}](#{row.name}) ({row.source})",
                "; ".join(map(str, told)),
                f"**{verdict(told)}**",
                str(row.seeds),
                f"{minutes:.0f}",
            )
        )
        sections += _section(row, by_run, minutes)
        _draw(row, by_run)
    lines += [*_plain(summary), "", "## Counted"]
    counted: list[Sequence[str]] = [("claim", "claimed", "counted", "verdict")]
    for one in COUNTS:
        found = one.found()
        counted.append(
            (
                f"{one.claim} ({one.source})",
                f"{one.claimed:g}",
                f"{found:.6g}",
                "holds" if one.holds else "does not hold",
            )
        )
    lines += ["", *_plain(counted), "", *sections]
    write_whole(PAGE, "\n".join(lines).rstrip() + "\n")


def _plain(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose columns are too wide to be aligned."""
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return [head, f"|{' --- |' * len(rows[0])}", *others]


def _section(row: Row, by_run: dict[str, list[dict[str, Any]]], minutes: float) -> list[str]:
    table: Rows = [("", *(figure.name for figure in row.figures))]
    for arm in row.arms:
        found = by_run[row.run_of(arm)]
        own = row.arms[arm]
        figures = row.figures if isinstance(own, str) else (own[1], *row.figures[1:])
        cells = [_cell([figure.of(run) for run in found], figure.digits) for figure in figures]
        table.append((arm, *cells))
    said = sorted({(processor(run["machine"]), run["commit"]) for found in by_run.values() for run in found})
    commands = list(dict.fromkeys(run["command"].rpartition(" ")[0] for found in by_run.values() for run in found))
    return [
        f"## {row.name}",
        "",
        f"{row.claim}. {row.source}.",
        "",
        f"Here: {'; '.join(dict.fromkeys(_seen(RUNS[run]) for run in by_run))}.",
        "",
        markdown(table),
        "",
        *([NOTES[row.name].rstrip(), ""] if row.name in NOTES else []),
        f"![{row.name}](images/reproduction/{row.name}.png)",
        "",
        *(f"    {command} SEED" for command in commands),
        "",
        f"{row.seeds} seeds, {minutes:.0f} minutes of one core ({row.minutes} planned); "
        + ", ".join(f"{cpu}, commit {commit}" for cpu, commit in said)
        + ".",
        "",
    ]


def _seen(recipe: Recipe) -> str:
    """What a run is trained on."""
    whole, name = (60_000, "Fashion-MNIST") if recipe.dataset == "fashion_mnist" else (4_000, "mnist_5k")
    images = int(recipe.train_split.partition("[:")[2].rstrip("]") or whole)
    size = f"{side(recipe)}x{side(recipe)}"
    return f"{images:,} images of {name} at {size} pixels, {recipe.epochs} times in batches of {recipe.batch_size}"


def _cell(values: Sequence[float], digits: int) -> str:
    return spread(values, digits) if all(map(isfinite, values)) else "not reached"


def _draw(row: Row, by_run: dict[str, list[dict[str, Any]]]) -> None:
    """The figure of the claim, a point a seed, the mean and its standard error; beside it the curves of training."""
    picture = Picture(figsize=(10, 3.4), layout="constrained")
    points, curves = picture.subplots(1, 2, width_ratios=(3, 2))
    for place, arm in enumerate(row.arms):
        values = [row.value(arm, run) for run in by_run[row.run_of(arm)]]
        color = f"C{place % 10}"
        points.plot(values, [place] * len(values), "o", color=color, alpha=0.6)
        error = stdev(values) / sqrt(len(values))
        points.errorbar(mean(values), place + 0.2, xerr=error, fmt="|", color=color, capsize=4, markersize=16)
        first = by_run[row.run_of(arm)][0]["training"]
        curves.plot([step for step, _, _ in first], [100 * (1 - top1) for _, _, top1 in first], color=color, label=arm)
    points.set(xlabel=row.figures[0].name, ylim=(len(row.arms) - 0.5, -0.5))
    points.set_yticks(range(len(row.arms)), list(row.arms))
    points.grid(axis="x", alpha=0.3)
    curves.set(xlabel="step", ylabel="training error, %, seed 0", yscale="log")
    curves.yaxis.set(major_formatter="{x:g}", minor_locator=LogLocator(subs=(2, 5)), minor_formatter="{x:g}")
    curves.grid(alpha=0.3)
    PICTURES.mkdir(parents=True, exist_ok=True)
    save(picture, PICTURES / f"{row.name}.png", dpi=80)
