"""What train_step and inference share: which contenders there are, and one network's after the other's."""

import argparse
import sys
from dataclasses import replace

from benchmarks.contender import Result, Rows, all_versions, compare, fact_rows, failures, shown, speed_rows
from benchmarks.networks import NETWORKS, Job
from benchmarks.report import command_line, write

# By name: the module and the form that it is asked for.
CONTENDERS = {
    "ours": ("ours", "auto"),
    "jax": ("ours", "jax"),
    "folded": ("ours", "folded"),
    "flax": ("ours", "flax"),
    "torch": ("rivals_torch", "eager"),
    "compile": ("rivals_torch", "compile"),
    "graphs": ("rivals_torch", "graphs"),
    "fused": ("rivals_torch", "fused"),
}


def options_parser(description: str, name: str, contenders: str) -> argparse.ArgumentParser:
    """The options of both; the first of `contenders` is what ratios are of."""
    made = command_line(description)
    names = lambda text: text.split(",")  # noqa: E731
    made.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, metavar="NETWORK")
    made.add_argument("--contenders", type=names, default=names(contenders), help=f"of {', '.join(CONTENDERS)}")
    made.add_argument("--torch-python", help="a python with torch, torchvision and timm; without it no PyTorch")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--seconds", type=float, default=1.0, help="of a contender's turn, at least a batch")
    made.add_argument("--limit", type=float, default=300.0, help="seconds in which a contender must be ready")
    made.add_argument("--size", type=int, help="pixels a side, instead of each network's own")
    made.add_argument("--classes", type=int)
    made.add_argument("--stem", help="cifar for images of 28 to 64 pixels")
    made.add_argument("--dtype", choices=("float32", "bfloat16"))
    made.add_argument("--name", default=name, help="of the files")
    return made


def changed(job: Job, options: argparse.Namespace, **changes: object) -> Job:
    """A network's job as the command line says."""
    given = {name: getattr(options, name) for name in ("size", "classes", "stem", "dtype", "seconds")} | changes
    return replace(job, **{name: value for name, value in given.items() if value is not None})


def measured(jobs: dict[str, Job], options: argparse.Namespace) -> dict[str, dict[str, Result]]:
    """Results by label and contender; only one label's contenders are alive at a time."""
    found = {}
    for label, job in jobs.items():
        print(label, file=sys.stderr)
        commands = {}
        for name in options.contenders:
            module, form = CONTENDERS[name]
            python = sys.executable if module == "ours" else options.torch_python
            if python is not None:
                commands[name] = job.command(python, module, form=form)
        found[label] = compare(commands, options.rounds, options.limit)
    return found


def tables(found: dict[str, dict[str, Result]], label: str) -> dict[str, Rows]:
    """Speed; then what it took."""
    return {
        "": speed_rows(found, label),
        "Peak memory, MB": fact_rows(found, label, lambda result: shown(result.memory_mb, ",.0f")),
        "Seconds of compiling": fact_rows(found, label, lambda result: shown(result.facts.get("compile_s"), ".1f")),
    }


def finish(options: argparse.Namespace, title: str, found: dict[str, dict[str, Result]], made: dict[str, Rows]) -> int:
    """Writes the report; the exit code is 1 if the first contender has no figures somewhere."""
    facts = [result.facts for results in found.values() for result in results.values()]
    notes = [
        f"{options.rounds} rounds in turn, a turn is about {options.seconds:g} s. Medians of rounds; ratios are "
        "medians of each round's, above 1 where the first contender is faster. Memory is a process's peak, or a GPU's.",
        f"Devices: {', '.join(dict.fromkeys(one['device'] for one in facts if one))}.",
        *failures(found),
        *(
            f"{name}: left out without --torch-python."
            for name in options.contenders
            if name not in next(iter(found.values()))
        ),
    ]
    results = {label: {name: result._asdict() for name, result in by.items()} for label, by in found.items()}
    write(options.out, options.name, title, made, results, used=all_versions(found), notes=notes)
    return int(any(next(iter(by.values())).failure for by in found.values()))
