"""The notebooks in colab/: each runs, and is its script."""

import json
import re

import jax
import nbformat
import pytest
from conftest import ROOT

from colab.execute import SCRIPTS, execute, read

REPOSITORY = re.search(r'^Repository = "([^"]*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
named = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def words(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_there_are_ten():
    assert [script.stem[:2] for script in SCRIPTS] == [f"{number:02}" for number in range(1, 11)]


@named
def test_a_notebook_is_its_script(script):
    """Sources, kinds of cells and metadata; what came out is the notebook's alone."""
    ours, theirs = read(script), nbformat.read(script.with_suffix(".ipynb"), 4)
    assert [(cell.cell_type, cell.source) for cell in ours.cells] == [
        (cell.cell_type, cell.source) for cell in theirs.cells
    ]
    assert ours.metadata == theirs.metadata


@named
def test_a_notebook_has_what_all_have(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), 4)
    nbformat.validate(notebook)
    first, setup = notebook.cells[0].source, notebook.cells[1].source
    at = REPOSITORY.removeprefix("https://github.com/")
    assert f"(https://colab.research.google.com/github/{at}/blob/main/colab/{script.stem}.ipynb)" in first
    assert re.search(r"^\*\*Runtime\*\*: ", first, re.MULTILINE) and "colab" in notebook.metadata
    assert setup == read(SCRIPTS[0]).cells[1].source  # the same set-up in all
    assert f'"{REPOSITORY}"' in setup
    exercises = words(notebook).split("## Exercises")[1]
    assert [line[:2] for line in exercises.splitlines() if re.match(r"\d\.", line)] == ["1.", "2.", "3."]


@named
def test_a_notebook_was_run_whole_and_shows_pictures_and_a_table(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    data = [output.data for output in outputs if "data" in output]
    assert any("image/png" in kinds for kinds in data)
    assert any("text/markdown" in kinds and "| --- |" in kinds["text/markdown"] for kinds in data)
    told = json.dumps(outputs)
    assert str(ROOT) not in told and not re.search(r"/(root|home|Users|tmp)/", told)  # of whoever ran it
    assert "Traceback" not in told


@named
def test_a_notebook_runs_in_small(script, tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("CNN_JAX_SMOKE", "1")
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setenv("JAX_PLATFORMS", jax.default_backend())
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling is what takes the time
    execute(script, tmp_path, timeout=600)
