"""The task: its recipe's options, what a step and a test tell, pictures, and a run through train.py."""

import json
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image
from quick_jit import quick_jit
from runs import summary

from cnn_jax import UserError, open_dataset, visualize
from cnn_jax.data import composed
from cnn_jax.data.dataset import END
from cnn_jax.layers import tap
from cnn_jax.recipes import Recipe
from cnn_jax.recipes.uses import Caption
from cnn_jax.tasks import caption, make_task

SMALL = {"width": 8, "embedding": 8}
OPTIONS = (
    "--task",
    "caption",
    "--dataset",
    "composed_captions",
    "--train-split",
    "train[:64]",
    "--test-split",
    "test[:32]",
)
OPTIONS += ("--batch-size", "16", "--caption.width", "8", "--caption.embedding", "8", "--caption.beam", "2")


def task_of(**options):
    config = Recipe(model="lenet5_modern", image_size=32, task="caption", caption=Caption(**SMALL, **options))
    return make_task(config, len(composed.VOCABULARY), 1)


@pytest.fixture(scope="module")
def scenes():
    return open_dataset("composed_captions", "test[:6]")


@pytest.fixture(scope="module")
def batch(scenes):
    return {"image": scenes.images, "label": scenes.labels}


@pytest.mark.parametrize("attention", [True, False])
def test_a_step_and_a_test_tell_the_same_of_the_same_sentences(batch, attention):
    task = task_of(attention=attention, dropout=0.0, coverage=0.0, beam=1)
    model = task.model()
    variables = quick_jit(partial(model.init, train=False))(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))

    @quick_jit
    def both(variables):
        images, tokens = task.inputs(batch, None)
        apply = partial(
            model.apply, variables, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)}
        )
        return task.loss(apply, (images, tokens))[:2], task.record(partial(model.apply, variables, train=False), batch)

    (loss, words), record = both(variables)
    assert set(record) - {"attention"} == {"loss", "words", "guess", "exact", "label"}
    np.testing.assert_allclose(loss, record["loss"].mean(), rtol=1e-5)
    counts = (batch["label"] > 0).sum((1, 2))
    np.testing.assert_allclose(words, np.average(record["words"], weights=counts), rtol=1e-5)
    assert record["guess"].shape == (6, composed.LONGEST) and ("attention" in record) == attention
    if attention:  # every word that was said looked at the whole map once
        said = np.asarray(record["guess"] > 0)
        np.testing.assert_allclose(record["attention"].sum((2, 3)), said, atol=0.01)  # float16


def test_longer_references_are_cut_in_training_alone(batch):
    task = task_of(length=4)
    assert task.inputs(batch, None)[1].shape == (6, 2, 4)


class Even(nn.Module):
    """Every word is as likely, and looks at all of four positions alike."""

    def __call__(self, images, tokens):
        tap(self, "attention", np.full((*tokens.shape, 4), 0.25, np.float32))
        return np.zeros((*tokens.shape, len(composed.VOCABULARY)), np.float32)


@pytest.mark.parametrize("coverage", [0.0, 0.5])
def test_coverage_is_the_weight_of_the_penalty(batch, coverage):
    tokens = batch["label"]
    apply = partial(Even().apply, {}, mutable=["batch_stats"])
    value, _, _ = task_of(coverage=coverage).loss(apply, (batch["image"], tokens))
    words = (tokens > 0).sum(2)
    penalty = (4 * (1 - words / 4) ** 2).sum(1) / words.sum(1)  # each of four positions was looked at words / 4 times
    np.testing.assert_allclose(value, np.log(len(composed.VOCABULARY)) + coverage * penalty.mean(), rtol=1e-5)


def records_of(scenes):
    """What a test would note if the first sentence of every scene but two were said."""
    guesses = scenes.labels[:, 0].astype(np.int32)
    guesses[4], guesses[5] = guesses[3], 0
    exact = np.array([True] * 4 + [False] * 2)
    looked = np.random.default_rng(0).dirichlet(np.ones(9), (6, composed.LONGEST)).reshape(6, composed.LONGEST, 3, 3)
    common = {"index": np.arange(6), "loss": np.arange(6.0), "words": np.full(6, 0.5)}
    return common | {"guess": guesses, "exact": exact, "label": scenes.labels, "attention": looked.astype(np.float16)}


def test_a_test_says_exact_matches_bleu_and_cider(scenes, monkeypatch):
    task, records = task_of(), records_of(scenes)
    found = task.summarize(records, scenes)
    assert found["test_loss"] == 2.5 and found["test_words"] == 0.5 and found["test_count"] == 6
    assert found["test_exact"] == pytest.approx(4 / 6) and 0.5 < found["test_bleu4"] < 1 < found["test_cider"] < 10
    assert task.told(found).startswith("test exact 66.67% of 6 images, BLEU-4 0.")
    monkeypatch.setattr(caption.captioning, "can_score", lambda: False)
    bare = task.summarize(records, scenes)
    assert set(bare) == {"test_loss", "test_words", "test_exact", "test_count"}
    assert task.told(bare) == "test exact 66.67% of 6 images, no BLEU (pip install 'cnn-jax[caption]'), beam 3,"


def test_what_a_test_found_is_drawn(scenes, tmp_path):
    records = records_of(scenes)
    assert task_of().draw(tmp_path, "net", records, scenes) == ["captions.png", "attention.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attention.png", "captions.png"]
    del records["attention"]
    assert task_of(attention=False).draw(tmp_path, "net", records, scenes) == ["captions.png"]


def test_attention_is_drawn_on_what_the_network_was_shown(tmp_path, monkeypatch):
    """A wide file is seen from one side of its middle to the other, by the network's card; a scene whole."""
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    told = {"filename": "wide.png", "sentences": [{"tokens": ["grey"]}]}
    file = tmp_path / "set.json"
    file.write_text(json.dumps({"images": [told | {"split": split} for split in ("train", "test")]}))
    shown = []
    monkeypatch.setattr(visualize, "draw_attention", lambda images, *_: shown.extend(images))
    records = {name: values[:1] for name, values in records_of(open_dataset("composed_captions", "test[:6]")).items()}
    records |= {"guess": np.array([[END]], np.int32), "label": np.array([[[3, END]]], np.int32)}
    task_of().draw(tmp_path, "net", records, open_dataset(f"karpathy:{file}?least=1", "test"))
    assert [image.shape for image in shown] == [(32, 32, 1)]
    assert shown[0].min() == shown[0].max() == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beam": 0}, "caption.beam must be at least 1 and at most 1,000, not 0"),
        ({"attention": False, "look_at": "c3"}, "caption.look-at must be left out without caption.attention, not c3"),
        ({"dropout": 1.0}, "caption.dropout must be at least 0 and below 1, not 1"),
        ({"length": 0}, "caption.length must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_told(options, words):
    with pytest.raises(UserError, match=words):
        Caption(**options)


def test_a_run_learns_by_train_py_and_is_complete(train_here, tmp_path):
    run = train_here("--model", "lenet5_modern", "--epochs", 1, *OPTIONS, "--out", tmp_path / "run")
    assert run.returncode == 0, run.stderr
    found = summary(tmp_path / "run")
    assert {"test_loss", "test_words", "test_exact", "test_bleu1", "test_bleu4", "test_cider"} <= set(found)
    assert found["test_loss"] < np.log(len(composed.VOCABULARY)) and found["test_count"] == 32
