import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from raw_sets import photo

from cnn_jax import UserError
from cnn_jax.cli import main
from cnn_jax.commands.inspect import inspect


def lines(report: str) -> dict[str, str]:
    """The first line of each row of a report, by its label."""
    return {line[:10].strip(): line[12:] for line in report.splitlines() if line[:10].strip()}


@pytest.fixture
def photos(tmp_path):
    """11 good images and 2 bad ones, in three classes."""
    for split in ("train", "val"):
        for pet in ("ant", "cat", "dog"):
            (tmp_path / "set" / split / pet).mkdir(parents=True)
    train = tmp_path / "set" / "train"
    for number in range(8):
        (train / "cat" / f"{number}.jpg").write_bytes(photo(number, (20 + 10 * number, 30)))
    (train / "dog" / "a.jpg").write_bytes(photo(1, (50, 30), mode="CMYK"))
    (train / "dog" / "b.png").write_bytes(photo(1, (50, 30), "PNG"))
    (train / "dog" / "c.jpg").write_bytes(photo(1)[:200])
    (train / "dog" / "d.jpg").write_bytes(b"")
    (train / "ant" / "a.jpg").write_bytes(photo(9, (50, 500)))
    (tmp_path / "set" / "val" / "ant" / "a.jpg").write_bytes(photo(1))
    return tmp_path


def test_the_report_agrees_with_numpy(tmp_path):
    images = np.random.default_rng(0).integers(0, 200, (90, 6, 7, 3), np.uint8)
    labels = np.repeat([0, 1, 2], [50, 30, 10])
    path = str(tmp_path / "a.npz")
    np.savez(path, x_train=images, y_train=labels, x_test=images[:5], y_test=labels[:5], classes=["ant", "bee", "cat"])
    report = inspect(path, out=tmp_path / "a.png")
    found = lines(report)
    assert found["splits"] == "train 90, test 5"
    assert found["looked at"] == "90 of 90 images of train"
    assert (found["height"], found["width"]) == ("6", "7")
    assert found["mean"] == " ".join(f"{value:.4f}" for value in images.mean((0, 1, 2)) / 255)
    assert found["std"] == " ".join(f"{value:.4f}" for value in (images / 255).std((0, 1, 2)))
    assert found["classes"] == "3, of 10 to 50, median 30 images each"
    assert [line.split() for line in report.splitlines() if line[12:15] in ("ant", "bee", "cat")] == [
        ["ant", "50"],
        ["bee", "30"],
        ["cat", "10"],
    ]
    assert found["kinds"] == "arrays of 3 channels 90" and found["bad images"] == "0"
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert picture.shape[0] > 400 and picture.std() > 5


def test_photos_of_many_kinds_and_bad_ones_are_told_apart(photos):
    report = inspect(f"folder:{photos / 'set'}", "train", out=photos / "p.png")
    found = lines(report)
    assert found["splits"].startswith(f"train 13, val (class folder {photos}/set/val/cat has no images")
    assert found["looked at"] == "13 of 13 images of train"
    assert found["height"] == "30 to 500, median 30" and found["width"] == "20 to 90, median 50"
    assert found["kinds"] == "JPEG RGB 9, JPEG CMYK 1, PNG RGB 1"
    assert found["bad images"] == "2"
    for name, why in (("c", "is a damaged JPEG"), ("d", "is empty (0 bytes)")):
        assert f"{photos}/set/train/dog/{name}.jpg {why}" in report
    assert (photos / "p.png").is_file()


def test_a_set_without_a_good_image_is_told_without_a_picture(photos):
    for file in (photos / "set" / "train").rglob("*.*"):
        file.write_bytes(b"")
    report = inspect(f"folder:{photos / 'set'}", "train", out=photos / "p.png")
    assert lines(report)["bad images"] == "13" and not (photos / "p.png").exists()


def test_a_limit_looks_at_images_evenly_spaced(tmp_path):
    found = lines(inspect("synthetic:8x8x10", "test", limit=7, out=tmp_path / "s.png"))
    assert found["looked at"] == "7 of 1,000 images of test"
    # Numbers 0, 166 or 167, 333, 500, 666, 832 or 833 and 999.
    assert found["classes"].startswith("10, of 0 to 2")


def test_many_classes_show_the_largest_and_the_smallest(tmp_path):
    labels = np.repeat(np.arange(100), np.arange(1, 101))
    np.savez(tmp_path / "a.npz", images=np.zeros((len(labels), 2, 2), np.uint8), labels=labels)
    report = inspect(str(tmp_path / "a.npz"), out=tmp_path / "a.png").splitlines()
    start = next(i for i, line in enumerate(report) if line.startswith("classes"))
    shown = [line.split() for line in report[start + 1 : start + 22]]
    assert shown[0] == ["99", "100"] and shown[10] == ["..."] and shown[-1] == ["0", "1"]
    assert lines("\n".join(report))["std"] == "0.0000"


def test_the_command_imports_no_jax_and_writes_where_it_stands(tmp_path):
    script = (
        "import sys; from cnn_jax.cli import main; code = main(['inspect', 'synthetic:8x9x2', '--limit', '20']);"
        "print(code, 'jax' in sys.modules, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "0 False False" and done.stderr == ""
    assert lines(done.stdout)["picture"] == "inspect-synthetic-8x9x2.png"
    assert (tmp_path / "inspect-synthetic-8x9x2.png").is_file()


def test_without_matplotlib_the_figures_are_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "cnn_jax.visualize.samples", raising=False)
    found = lines(inspect("synthetic:8x8x2", limit=20, out=tmp_path / "s.png"))
    assert found["picture"] == "none (pip install matplotlib)" and "mean" in found


def test_a_split_of_a_prepared_set_is_inspected(tiny, tmp_path, capsys):
    where = ["--data-dir", str(tiny), "--out", str(tmp_path / "t.png")]
    code = main(["inspect", "tiny_shapes", "--split", "test[:50%]", *where])
    found = lines(capsys.readouterr().out)
    assert code == 0
    assert found["splits"] == "train 30, test 20" and found["looked at"] == "10 of 10 images of test[:50%]"
    assert found["kinds"] == "PNG RGB 10" and found["bytes"].endswith(" in all")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("no_such_set",), "unknown data set 'no_such_set'"),
        (("mnist", "--data-dir", "/nowhere"), "/nowhere is not a directory"),
        (("synthetic:8x8x2", "--split", "val"), "unknown split of synthetic:8x8x2 'val'"),
        (("synthetic:8x8x2", "--limit", "0"), "must be a positive whole number, not '0'"),
        (("synthetic:8x8x2", "--limit", "5", "--out", "/nowhere/a.png"), "cannot write /nowhere/a.png: No such file"),
        ((), "the following arguments are required: dataset"),
    ],
)
def test_a_mistake_is_one_line(capsys, argv, line):
    assert main(["inspect", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("cnn-jax: ") and line in err and err.count("\n") == 1


def test_a_label_out_of_range_is_a_mistake(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 2, 2), np.uint8), labels=[0, 5], classes=["a"])
    with pytest.raises(UserError, match="labels goes from 0 to 5, not 0 to 0"):
        inspect(str(tmp_path / "a.npz"))


def test_samples_of_any_size_and_name_are_drawn_with_their_names(tmp_path, monkeypatch):
    from cnn_jax.visualize import draw_samples, samples

    drawn = []
    keep = samples.Figure.savefig
    monkeypatch.setattr(samples.Figure, "savefig", lambda self, *a, **k: drawn.append(self) or keep(self, *a, **k))
    images = [np.full((5, 9, 3), 200, np.uint8), np.zeros((30, 2, 1), np.uint8), *[np.ones((4, 4, 3), np.uint8)] * 8]
    names = ["$1_bill$ {", "a name of more than twenty letters", *["x"] * 8]
    draw_samples(images, names, tmp_path / "s.png", "set $x")
    titles = [axes.get_title() for axes in drawn[0].axes if axes.images]
    assert titles == ["$1_bill$ {", "a name of more tha...", *["x"] * 8]
    assert np.asarray(Image.open(tmp_path / "s.png")).std() > 5
