"""The task embed: the losses of the library, batches of several images of each class, runs that go on exactly."""

import signal
import subprocess
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from runs import SAFETY, records, summary

from cnn_jax import UserError, embedding, open_dataset
from cnn_jax.recipes import RECIPES, Embed
from cnn_jax.recipes.command_line import parse
from cnn_jax.tasks import make_task
from cnn_jax.training.manifest import MANIFEST

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(3), 4)
VECTORS = embedding.verification.unit(RNG.standard_normal((12, 8)) + RNG.standard_normal((3, 8))[LABELS])
WEIGHT = RNG.standard_normal((8, 3)).astype(np.float32)
COSINES = VECTORS @ (WEIGHT / np.linalg.norm(WEIGHT, axis=0))


def task(**options):
    return make_task(replace(RECIPES["embedding"], embed=Embed(**options)), 3, 1)


def apply(images):
    """A network that knows the answer."""
    return images, {"aux_logits": {"aux_arcface": {"logits": COSINES}}}


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({}, embedding.triplet_margin_loss),
        ({"mining": "hard", "margin": 0.3}, partial(embedding.triplet_margin_loss, margin=0.3, mining="hard")),
        ({"loss": "contrastive", "margin": 0.7}, partial(embedding.contrastive_loss, margin=0.7)),
        ({"loss": "supcon", "temperature": 0.2}, partial(embedding.supcon_loss, temperature=0.2)),
        ({"loss": "arcface"}, partial(embedding.arcface_loss, weight=WEIGHT)),
        (
            {"loss": "arcface", "margin": 0.3, "scale": 8},
            partial(embedding.arcface_loss, weight=WEIGHT, margin=0.3, scale=8),
        ),
    ],
)
def test_the_loss_is_the_librarys_with_the_papers_margins(options, loss):
    value, figure, _ = task(**options).loss(apply, (VECTORS, LABELS))
    np.testing.assert_allclose(value, loss(VECTORS, LABELS), rtol=1e-4)
    np.testing.assert_allclose(figure, embedding.recall_at_k(VECTORS, LABELS, (1,))[1])


def test_a_test_verifies_pairs_and_tells_hadsells_loss_of_them():
    found = task().summarize({"embedding": VECTORS, "label": LABELS}, open_dataset("fashion_5k", "test"))
    theirs = embedding.verify(VECTORS, LABELS)
    pairs, same = embedding.draw_pairs(LABELS)
    apart = np.linalg.norm(VECTORS[pairs[:, 0]] - VECTORS[pairs[:, 1]], axis=1)
    loss = np.mean(apart[same] ** 2) / 2 + np.mean(np.maximum(0, 1 - apart[~same]) ** 2) / 2
    np.testing.assert_allclose(found["test_loss"], loss, rtol=1e-5)
    assert (found["test_accuracy"], found["test_val"], found["test_eer"]) == (theirs.accuracy, theirs.val, theirs.eer)
    assert found["test_count"] == 12
    assert task().told(found).startswith(f"test verification accuracy {theirs.accuracy:.2%} (VAL@FAR=0.001")


def test_arcface_alone_has_directions_and_dim_0_no_layer():
    model = task(loss="arcface", dim=16).model()
    assert model.directions == 3 and model.dim == 16 and model.backbone.num_classes == 0
    assert task(dim=0).model().dim is None and task().model().directions == 0 and task().model().norm is None
    normed = task(batch_norm=True).model(batch_norm={"momentum": 0.0})  # the recipe's, as the backbone's are
    assert normed.norm().momentum == normed.backbone.norm().momentum == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--batch-size 50", "batch-size must be a multiple of embed.images-per-class=8, not 50"),
        ("--embed.images-per-class 1", "embed.images-per-class must be at least 2"),
        ("--embed.loss supcon --embed.margin 1", "embed.margin must be left out with loss=supcon"),
        ("--embed.mining semi-hard", "embed.mining.*semihard"),
        ("--optimizer.accumulate 2", "optimizer.accumulate must be 1 with embed.loss=triplet"),
        ("--label-smoothing 0.1", "label-smoothing must be 0 with task=embed"),
    ],
)
def test_options_that_cannot_be_are_told(options, message):
    with pytest.raises(UserError, match=message):
        parse(["--recipe", "embedding", *options.split()])
    parse(["--recipe", "embedding", "--embed.loss", "arcface", "--embed.images-per-class", "1"])


FEW = "train[:10%]"
SHORT = ("--recipe", "embedding", "--model", "lenet5_modern", "--train-split", FEW, "--epochs", 2)  # 5 steps each


@pytest.mark.parametrize("loss", ["triplet", pytest.param("arcface", marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_bits(train_here, tmp_path, loss):
    options, steps = (*SHORT, "--embed.loss", loss), []
    whole = train_here(*options, "--out", tmp_path / "whole", steps=steps, pictures=loss == "triplet")
    assert whole.returncode == 0, whole.stderr
    labels = open_dataset("fashion_5k", FEW).of_classes(RECIPES["embedding"].train_classes).labels
    assert len(steps) == 10
    for _, images in steps:
        batch = labels[np.asarray(images)].reshape(7, 8)
        assert (batch == batch[:, :1]).all() and {*batch[:, 0].tolist()} == {0, 3, 4, 5, 6, 8, 9}
    stopped = train_here(*options, "--out", tmp_path / "cut", stop=(signal.SIGTERM, 7))
    assert stopped.returncode == 75 and "at step 8" in stopped.stderr
    assert train_here("--resume", "--out", tmp_path / "cut").returncode == 0
    assert summary(tmp_path / "cut")["params_digest"] == summary(tmp_path / "whole")["params_digest"]
    tested = [record for record in records(tmp_path / "cut") if record["kind"] == "test"]
    assert [record["accuracy"] for record in tested][-1] == summary(tmp_path / "whole")["test_accuracy"]
    if loss == "triplet":
        for name in ("curves", "neighbours", "map", "distances"):
            assert np.asarray(Image.open(tmp_path / "whole" / f"{name}.png").convert("L")).std() > 5


@pytest.mark.slow
def test_a_killed_run_goes_on_in_the_midst_of_an_epoch_to_the_same_bits(spied, train_here, tmp_path):
    assert train_here(*SHORT, "--out", tmp_path / "whole").returncode == 0
    out = tmp_path / "cut"
    saved = out / "checkpoints" / "8" / MANIFEST  # of the third step of the second epoch
    options = (*SHORT, "--save-every", 4, "--out", out)
    command = spied(tmp_path / "log", *options, STOP=f"{int(signal.SIGKILL)} 9 {saved}")
    assert subprocess.run(**command, capture_output=True, timeout=SAFETY).returncode == -signal.SIGKILL
    resumed = train_here("--resume", "--out", out)
    assert resumed.returncode == 0 and "from step 8 to 10" in resumed.stdout, resumed.stderr
    assert summary(out)["params_digest"] == summary(tmp_path / "whole")["params_digest"]


def test_a_batch_of_more_classes_than_there_are_is_told(train_here, tmp_path):
    done = train_here(*SHORT, "--batch-size", 64, "--out", tmp_path / "run")
    assert done.returncode == 2 and "for 7 classes 56 at most, not 64" in done.stderr
