"""train.py and cnn-jax, which know the ledger's networks and recipes besides.

uv run python -m benchmarks.ledger.run train --recipe relu --seed 1
uv run python -m benchmarks.ledger.run cnn-jax evaluate --run DIR
"""

import runpy
import sys

from cnn_jax.platform import ask_for_huge_pages

if __name__ == "__main__":
    ask_for_huge_pages()  # before the networks are imported: the process may start anew

    from benchmarks.ledger.networks import register
    from benchmarks.ledger.runs import RUNS
    from benchmarks.networks import ROOT
    from cnn_jax import cli
    from cnn_jax.recipes import RECIPES

    register()
    RECIPES.update(RUNS)
    program = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if program == "train":
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    elif program == "cnn-jax":
        sys.exit(cli.main())
    else:
        sys.exit(f"the first word is train or cnn-jax, not {program!r}")
