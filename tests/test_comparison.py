"""`cnn-jax compare`, and the picture that it draws."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from runs import records, summary

from cnn_jax.cli import main
from cnn_jax.visualize import comparison, draw_comparison


@pytest.fixture
def figures(monkeypatch):
    drawn = []

    class Kept(comparison.Figure):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            drawn.append(self)

    monkeypatch.setattr(comparison, "Figure", Kept)
    return drawn


def record(kind, epoch, loss, top1):
    return {"kind": kind, "epoch": epoch, "loss": loss, "top1": top1}


def test_each_run_has_a_colour_a_line_for_its_tests_and_a_name(tmp_path, figures):
    runs = {
        "first $": [record("train", 1, 2.0, 0.1), record("test", 1, 1.5, 0.4), record("test", 2, 1.0, 0.6)],
        "second": [record("train", 1, 3.0, 0.2), record("validation", 1, 2.5, 0.3)],
    }
    draw_comparison(runs, tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png").convert("L")).std() > 5
    (figure,) = figures
    loss, accuracy = figure.axes
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[10.0], [40.0, 60.0], [20.0], [30.0]]
    assert [list(line.get_xdata()) for line in loss.lines] == [[1], [1, 2], [1], [1]]
    colors = [line.get_color() for line in loss.lines]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first $", "second"]
    for axes in figure.axes:
        assert axes.get_xlabel() == "epoch" and axes.get_ylabel()


def test_compare_draws_runs_and_says_how_good_they_are(capsys, whole, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(whole[0] / "config.json", other)
    first = [line for line in records(whole[0]) if line.get("epoch") == 1]
    (other / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in first))
    out = tmp_path / "both.png"
    assert main(["compare", str(whole[0]), str(other), "--out", str(out)]) == 0
    head, one, two, last = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "model", "data"] and last == str(out)
    best = max(line["top1"] for line in records(whole[0]) if line["kind"] == "test")
    best, end = (f"{100 * value:.2f}" for value in (best, summary(whole[0])["test_top1"]))
    assert one.split() == [str(whole[0]), "lenet5_modern", "mnist_5k", "3", best, end]
    assert two.split()[3] == "1" and np.asarray(Image.open(out).convert("L")).std() > 5


def test_mistakes_are_one_line_and_exit_code_2(capsys, whole, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(whole[0] / "config.json", empty)
    for argv, line in (
        ((tmp_path,), "config.json"),
        ((empty,), "empty has no tested epoch yet"),
        ((whole[0], whole[0]), "a run is named twice"),
        ((whole[0], "--out", "a.jpg"), "the name of a picture, such as a.png, not a.jpg"),
        ((whole[0], "--out", tmp_path / "none" / "a.png"), "cannot read or write"),
        ((), "required: RUN"),
    ):
        code, (out, err) = main(["compare", *map(str, argv)]), capsys.readouterr()
        assert (code, out) == (2, "") and line in err and err.count("\n") == 1, err


def test_another_figure_than_accuracy_is_drawn_where_tests_tell_it(tmp_path, figures):
    told = {"kind": "test", "epoch": 1, "loss": 1.5, "recall": 0.4}
    draw_comparison({"a": [record("train", 1, 2.0, 0.1), told]}, tmp_path / "a.png", shown=("recall", "recall@1"))
    _, figure = figures[0].axes
    assert [list(line.get_ydata()) for line in figure.lines] == [[10.0], [40.0]]
    assert figure.get_title() == "recall@1 (pale: top-1 in training)"


def test_runs_of_several_tasks_have_no_figure_in_common(capsys, monkeypatch):
    monkeypatch.setattr("cnn_jax.training.trained.read_run", lambda task: SimpleNamespace(task=task))
    assert main(["compare", "classify", "embed"]) == 2
    assert "no figure in common: they learned to classify and to embed" in capsys.readouterr().err
