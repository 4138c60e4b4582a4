"""The command `python -m benchmarks.ledger`: makes the runs that are missing, and the page; see __init__.py."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import benchmarks.ledger
from benchmarks.ledger.claims import BY_NAME, ROWS, wanted
from benchmarks.ledger.results import FOLDERS, RESULTS, Wanted, make
from benchmarks.report import processor
from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.visualize import can_draw


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0 done, 1 digests differ, 2 a mistake, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ledger",
        description=benchmarks.ledger.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--row", nargs="+", metavar="NAME", help="all that a CPU is for if not given")
    parser.add_argument("--gpu", action="store_true", help="the rows that a GPU is for, in place of the others")
    parser.add_argument("--dataset", help="Fashion-MNIST in place of TFDS's: an .npz file")
    parser.add_argument("--data-dir", help="where prepared sets lie")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, a core each; 0: one, on all")
    parser.add_argument("--check", action="store_true", help="make the rows again, beside, and compare digests")
    parser.add_argument("--page", action="store_true", help="only the page, of what is there")
    options = parser.parse_args(argv)
    try:
        names = options.row or [row.name for row in ROWS if row.gpu is options.gpu]
        for name in names:
            if name not in BY_NAME:
                raise UserError(did_you_mean("row", name, BY_NAME))
        runs = wanted(tuple(BY_NAME[name] for name in names))
        given = {"--dataset": options.dataset, "--data-dir": options.data_dir}
        data = [word for pair in given.items() if pair[1] for word in pair]
        if options.check:
            return _check(runs, data, options.jobs)
        if not options.page:
            make(runs, data, RESULTS, FOLDERS, options.jobs)
        if can_draw():
            from benchmarks.ledger.page import write_page

            write_page(RESULTS)
        else:
            print("results/ alone is written: pages and pictures need matplotlib", file=sys.stderr)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # train.py hears it too, and saves
        print(f"{parser.prog}: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _check(runs: list[Wanted], data: list[str], jobs: int) -> int:
    """Makes runs once more; says which digests are the same."""
    for run in runs:
        if run.read(RESULTS) is None:
            raise UserError(f"{run.result(RESULTS)} is not there to compare with; run it without --check first")
    with tempfile.TemporaryDirectory() as folder:
        make(runs, data, Path(folder), Path(folder) / "runs", jobs)
        differ = 0
        for run in runs:
            kept, again = (run.read(place) or {} for place in (RESULTS, Path(folder)))
            same = kept["params_digest"] == again["params_digest"]
            differ += not same
            there, here = processor(kept["machine"]), processor(again["machine"])
            why = "" if same or there == here else f" ({there} there, {here} here)"
            print(f"{run.run}, seed {run.seed}: {again['params_digest']}, {'the same' if same else 'ANOTHER'}{why}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
