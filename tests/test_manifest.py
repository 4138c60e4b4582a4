"""What is written down of a checkpoint's files, and what it tells of changes."""

import json

import numpy as np
import pytest

from cnn_jax.training import manifest


@pytest.fixture
def step(tmp_path):
    """A sealed step of two files."""
    folder = tmp_path / "7"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "array").write_bytes(bytes(range(100)))
    (folder / "_METADATA").write_text("{}")
    manifest.seal(folder)
    return folder


def test_a_sealed_step_is_as_it_was_written(step):
    assert manifest.fault(step) is None
    listed = manifest.read(step)["files"]
    assert listed["_METADATA"] == {
        "size": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",  # printf {} | sha256sum
    }
    assert set(listed) == {"d/array", "_METADATA"}
    assert [path.name for path in step.parent.iterdir()] == ["7"]  # nothing beside it


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda s: (s / "d" / "array").write_bytes(bytes(99)), "is damaged (d/array: cut short)"),
        (lambda s: (s / "d" / "array").write_bytes(bytes(100)), "is damaged (d/array: other contents)"),
        (lambda s: (s / "d" / "array").unlink(), "is damaged (d/array: missing)"),
        (lambda s: (s / "d" / "more").write_text(""), "is damaged (d/more: not part of it)"),
        (lambda s: (s / "manifest.json").unlink(), "was not finished"),
        (lambda s: (s / "manifest.json").write_text("[]"), "is damaged (manifest.json: other contents)"),
        (lambda s: s.rename(s.parent / "8"), "is not there"),
    ],
)
def test_every_change_of_a_step_is_told(step, damage, fault):
    damage(step)
    assert manifest.fault(step) == fault


def test_a_manifest_that_says_something_else_is_not_believed(step):
    """Better figures by an editor, with the old sha256."""
    manifest.write(step, manifest.read(step) | {"metrics": {"test_top1": np.float32(0.5)}})
    assert manifest.read(step)["metrics"] == {"test_top1": 0.5} and manifest.fault(step) is None
    path = step / "manifest.json"
    path.write_text(path.read_text().replace("0.5", "0.9"))
    assert json.loads(path.read_text())["metrics"] == {"test_top1": 0.9}
    with pytest.raises(ValueError, match="other contents"):
        manifest.read(step)
    assert manifest.read_all(step.parent) == {}


def test_steps_are_folders_of_numbers(step):
    for name in ("12", "3.orbax-checkpoint-tmp", "damaged"):
        (step.parent / name).mkdir()
    (step.parent / "5").write_text("")
    assert manifest.steps(step.parent) == [7, 12]
    assert manifest.steps(step.parent / "nowhere") == []


def notes(**top1):
    return {int(step[1:]): {"metrics": {"test_top1": value, "tested": kind}} for step, (value, kind) in top1.items()}


def test_the_best_is_the_highest_and_the_earlier_of_equals():
    same = notes(s3=(0.5, "test"), s5=(0.9, "test"), s8=(0.9, "test"))
    assert manifest.best(same) == 5
    assert manifest.best(same | {9: {"files": {}}}) == 5 and manifest.best({9: {"files": {}}}) is None


def test_tests_on_other_images_are_not_compared():
    assert manifest.best(notes(s3=(0.9, "test"), s5=(0.6, "validation"), s8=(0.7, "validation"))) == 8
