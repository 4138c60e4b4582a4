"""Runs notebooks whole and writes what came out: colab/NAME.py, for jupytext, -> colab/NAME.ipynb, with outputs.

    uv run python -m colab.execute              all of them, half an hour on 2 cores
    uv run python -m colab.execute 01 03        some
    uv run python -m colab.execute --words 03   text alone has changed: the outputs that are there stay

CNN_JAX_SMOKE=1 makes everything in them small; then nothing is written, as a test does.
"""

import argparse
import os
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.glob("[0-9][0-9]_*.py"))
SMOKE = os.environ.get("CNN_JAX_SMOKE") == "1"


def read(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, without outputs; cells are numbered, so that the same script is the same file."""
    notebook = jupytext.read(script)
    notebook.metadata["jupytext"].pop("main_language", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02}"
    return notebook


def code_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(script: Path, folder: Path, *, timeout: float = 3600) -> nbformat.NotebookNode:
    """Runs all cells of a script in a new kernel that starts in `folder`.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell raised; it says which, with its traceback.
    """
    notebook = read(script)
    NotebookClient(
        notebook,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        timeout=timeout,
        startup_timeout=600,  # seconds, for a busy machine
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    notebook.metadata.pop("language_info", None)  # of whoever ran it last
    return notebook


def reword(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, with the outputs that its .ipynb has.

    Raises:
      ValueError: code differs, which has to be run. FileNotFoundError: there is no .ipynb yet.
    """
    notebook, written = read(script), nbformat.read(script.with_suffix(".ipynb"), 4)
    ours, theirs = code_of(notebook), code_of(written)
    if [cell.source for cell in ours] != [cell.source for cell in theirs]:
        raise ValueError(f"{script.name} has other code than its notebook: run it without --words")
    for new, old in zip(ours, theirs, strict=True):
        new.update(outputs=old.outputs, execution_count=old.execution_count)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", help="how the notebooks begin, such as 03; all if none")
    parser.add_argument("--words", action="store_true", help="text alone has changed: keep the outputs")
    command = parser.parse_args()
    for name in command.names:
        if not any(script.name.startswith(name) for script in SCRIPTS):
            parser.error(f"no notebook begins with {name!r}; there are {', '.join(script.stem for script in SCRIPTS)}")
    for script in SCRIPTS:
        if command.names and not script.name.startswith(tuple(command.names)):
            continue
        began = time.perf_counter()
        try:
            notebook = reword(script) if command.words else None
        except (ValueError, FileNotFoundError) as error:
            parser.error(str(error))
        notebook = notebook or execute(script, HERE)
        if not SMOKE:
            nbformat.write(notebook, script.with_suffix(".ipynb"))
        print(f"{script.stem}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
