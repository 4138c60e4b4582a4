"""The recipes on ImageNet, dry: two steps and a test through train.py, on an imagenet2012 of 300 photographs."""

import math
import shutil

import jax
import pytest
from runs import made_once, records, summary
from small_imagenet import SIZES, write

from cnn_jax.cli import main
from cnn_jax.data import open_dataset
from cnn_jax.recipes import RECIPES

IMAGENET = [name for name, recipe in RECIPES.items() if recipe.dataset == "imagenet2012"]
# At a size near the least that the network takes. Others are `slow`: they compile for minutes, or save a gigabyte.
LIGHT = {"nin_imagenet": 64, "plain18_imagenet": 32, "squeezenet1_0_imagenet": 32, "mobilenet_100_imagenet": 32}


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    """Where imagenet2012 lies, prepared."""
    return made_once(tmp_path_factory, "imagenet", write)


@pytest.fixture
def out(tmp_path):
    """A run's folder; its checkpoints are up to two gigabytes."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.fixture
def quickly_compiled():
    """What compiles for minutes with optimisations, and runs twice on a few pixels."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def assert_runs_dry(train_here, imagenet, out, name, *options):
    """With the recipe's options but for the length, the batch, a rate for it, and groups of two images for its groups.

    By steps of four images at the rate of a thousand a network of a hundred layers leaves float32.
    """
    group = RECIPES[name].bn_group_size and 2
    batch = 2 * (group or 1)
    done = train_here(
        *("--recipe", name, "--data-dir", imagenet, "--out", out, "--epochs", 1, "--threads", 2),
        *("--batch-size", batch, "--bn-group-size", group, "--optimizer.lr", 1e-3),
        *("--train-split", f"train[:{2 * batch}]", "--test-split", f"validation[:{batch - 1}]", *options),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert f"imagenet2012: {2 * batch} train, {batch - 1} test images, 1000 classes, on the host" in done.stdout
    found = summary(out)
    assert found["test_count"] == batch - 1 and not any(found["skipped_images"].values())
    trained = [record for record in records(out) if record["kind"] == "train"]
    assert trained[-1]["step"] == 2 and not (out / "skipped.jsonl").exists()
    assert all(math.isfinite(value) for value in (trained[-1]["loss"], found["test_loss"]))


def test_the_set_is_shaped_as_imagenet(imagenet):
    for split, count in SIZES.items():
        images = open_dataset("imagenet2012", split, imagenet)
        assert (len(images), len(images.classes), images.fixed_size) == (count, 1000, False)


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_recipe_on_imagenet_runs_dry(name, train_here, imagenet, out, quickly_compiled):
    assert_runs_dry(train_here, imagenet, out, name, "--image-size", LIGHT[name])


def test_a_run_is_evaluated_by_ten_crops_of_its_own_images(train_here, imagenet, out, quickly_compiled, capsys):
    assert_runs_dry(train_here, imagenet, out, "nin_imagenet", "--image-size", LIGHT["nin_imagenet"])
    options = ("--run", str(out), "--split", "validation[:5]", "--protocol", "ten_crop")
    assert main(["evaluate", "nin_imagenet", *options]) == 0
    assert "nin_imagenet on imagenet2012 validation[:5], ten_crop: 5 images\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGENET)
def test_a_recipe_on_imagenet_runs_dry_at_its_own_size(name, train_here, imagenet, out):
    """With optimisations: without them GoogLeNet is not through in six minutes, with them in one and a half."""
    assert_runs_dry(train_here, imagenet, out, name)
