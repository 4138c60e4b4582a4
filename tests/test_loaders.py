import numpy as np
import pytest

from cnn_jax import UserError
from cnn_jax.data.loaders import open_loaders
from cnn_jax.data.order import epoch_order
from cnn_jax.recipes import Augment, Recipe
from cnn_jax.sharding import data_mesh, per_seed, split

SMALL = {"dataset": "synthetic:12x12x3", "train_split": "train[:50]", "test_split": "test[:21]"}


def opened(engine="auto", **changes):
    config = Recipe(model="lenet5_modern", **SMALL | {"batch_size": 8, "seed": 3} | changes)
    return open_loaders(config, data_mesh(config.batch_size), size=8, engine=engine)


def test_an_epoch_is_its_order_with_the_numbers_of_its_images():
    train = opened()["train"]
    assert (len(train), train.classes, train.channels, train.engine.place) == (50, 3, 3, "device")
    batches = list(train.epoch(2))
    np.testing.assert_array_equal([batch.rows for batch in batches], epoch_order(3, 2, 50, 8))
    for batch in batches:
        np.testing.assert_array_equal(batch.arrays["index"], batch.rows)
        assert batch.mask.all()
    rest = [batch.rows for batch in train.epoch(2, offset=16)]
    np.testing.assert_array_equal(rest, [batch.rows for batch in batches[2:]])
    assert len(list(train.epoch(0, most=2))) == 2


@pytest.mark.parametrize("engine", ["device", "host"])
def test_every_image_comes_once_with_padding_under_a_mask(engine):
    test = opened(engine)["test"]
    batches = list(test.every_image())
    rows, mask = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("rows", "mask"))
    assert rows[mask].tolist() == list(range(21)) and len(rows) == 24
    assert test.engine.place == engine


def test_seeds_side_by_side_have_each_their_own_order():
    train, test = (opened(seeds=2)[kind] for kind in ("train", "test"))
    (first, *_) = train.epoch(0)
    assert first.rows.shape == (2, 8) and train.example()["index"].shape == (2, 8)
    np.testing.assert_array_equal(first.rows, [epoch_order(seed, 0, 50, 8)[0] for seed in (3, 4)])
    assert train.sharding == per_seed(train.mesh) and test.sharding == split(test.mesh)
    assert test.example()["index"].shape == (8,)
    with pytest.raises(UserError, match="--seeds trains side by side on sets that live on the device"):
        opened("host", seeds=2)


def test_a_share_is_held_out_on_request():
    loaders = opened(validation=0.2)
    assert {kind: len(loader) for kind, loader in loaders.items()} == {"train": 40, "test": 21, "validation": 10}


def test_a_batch_larger_than_the_set_is_told():
    with pytest.raises(UserError, match="--batch-size 64 is more than the 50 training images"):
        opened(batch_size=64)


def test_a_random_crop_is_for_training_alone(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        for part in ("train", "test"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    augment = Augment(crop="random_resized")
    folder = {"dataset": f"folder:{tmp_path}", "train_split": "train", "test_split": "test", "batch_size": 4}
    loaders = opened(augment=augment, **folder)
    assert loaders["train"].engine.place == "host"

    def images(kind, epoch):
        loader = loaders[kind]
        rows = np.arange(8, dtype=np.int32).reshape(2, 4)
        return np.concatenate([np.asarray(batch["image"]) for batch in loader.engine.batches(rows, epoch)])

    assert not np.array_equal(images("train", 0), images("train", 1))
    np.testing.assert_array_equal(images("test", 0), images("test", 1))


def test_what_is_begun_is_what_the_engine_is_asked_for_next(monkeypatch):
    train = opened("host")["train"]
    begun, batches = [], []
    monkeypatch.setattr(train.engine, "begin", lambda rows, epoch=None: begun.append((rows.tolist(), epoch)))
    monkeypatch.setattr(
        train.engine, "batches", lambda rows, epoch=None: batches.append((rows.tolist(), epoch)) or [{}] * len(rows)
    )
    train.begin(2)
    train.begin(None)
    list(train.epoch(2))
    list(train.every_image())
    assert begun == batches


def test_a_set_whose_labels_the_task_does_not_learn_is_told():
    with pytest.raises(UserError, match="composed_masks has labels for --task .*, and --task classify learns a class"):
        opened(dataset="composed_masks")
