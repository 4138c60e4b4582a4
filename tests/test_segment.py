"""The task of masks: what is trained, what a test notes, what a recipe may ask for, and a run that is killed."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from quick_jit import quick_jit

from cnn_jax import UserError, open_dataset
from cnn_jax.data.augment import make_mask_preprocess, make_preprocess
from cnn_jax.data.order import Timeline
from cnn_jax.data.sources import open_run
from cnn_jax.recipes import RECIPES, Augment, Recipe, Segment
from cnn_jax.recipes.command_line import parse
from cnn_jax.segmentation import DeepLabV3, UNet, dice_loss, pixel_cross_entropy
from cnn_jax.tasks import make_task
from cnn_jax.training.program import Program
from cnn_jax.training.step import train_step

RNG = np.random.default_rng(0)
SMALL = Recipe("lenet5_modern", task="segment", batch_size=4, segment=Segment(widths=(8, 8, 8)))
MASKS = RNG.integers(0, 3, (4, 32, 32), np.uint8)
IMAGES = np.stack([60 * MASKS, 255 - 60 * MASKS, RNG.integers(0, 256, MASKS.shape, np.uint8)], -1).astype(np.uint8)


def task(classes=3, channels=3, **changes):
    return make_task(replace(SMALL, **changes), classes, channels)


def test_masks_move_with_their_images():
    """The image of a mask, its classes as grey levels, comes out as the mask does."""
    options = vars(Augment(pad=5, flip=True))
    drawn = np.where(RNG.random(MASKS.shape) < 0.1, 255, MASKS + 1).astype(np.uint8)
    key = jax.random.key(1)
    images = quick_jit(make_preprocess((32, 32), (0.0,), (1.0,), options))(drawn[..., None], key)[..., 0] * 255
    masks = np.asarray(quick_jit(make_mask_preprocess((32, 32), options))(drawn, key))
    assert masks.dtype == np.uint8
    # Outside of the image pixels are 0 and classes IGNORED; inside no grey level is 0.
    np.testing.assert_array_equal(masks, np.where(np.round(images) == 0, 255, np.round(images)))
    assert (np.round(images) == 0).any() and not np.array_equal(masks, drawn)
    np.testing.assert_array_equal(quick_jit(make_mask_preprocess((32, 32), options))(drawn, None), drawn)


def test_masks_are_brought_to_the_networks_size():
    """In the middle of what is not counted, as images stand in a black frame; or by the nearest pixel."""
    options = vars(Augment())
    framed = np.asarray(make_mask_preprocess((36, 33), options)(MASKS, None))
    images = np.asarray(make_preprocess((36, 33), (0.0,), (1.0,), options)(MASKS[..., None] + np.uint8(1), None))[
        ..., 0
    ]
    np.testing.assert_array_equal(framed == 255, images == 0)
    np.testing.assert_array_equal(framed[:, 2:34, :32], MASKS)
    np.testing.assert_array_equal(make_mask_preprocess((16, 32), options)(MASKS, None), MASKS[:, 1::2])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"rotate": 10},
            "augment.rotate must be left out with task=segment, whose masks pad and flip move .*, not 10",
        ),
        ({"elastic": 34}, "augment.elastic must be left out"),
        ({"crop": "random_resized"}, "augment.crop must be left out"),
        ({"policy": "randaugment"}, "augment.policy must be left out"),
        ({"erase": 0.25}, "augment.erase must be left out"),
        ({"mixup": 0.2}, "augment.mixup must be 0 with task=segment, not 0.2"),
    ],
)
def test_an_augmentation_that_masks_do_not_follow_is_refused(changes, told):
    with pytest.raises(UserError, match=told):
        replace(SMALL, augment=Augment(**changes))
    assert replace(SMALL, augment=Augment(pad=4, flip=True, color="inception"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"widths": ()}, r"segment.widths must be whole numbers from 1 to 65,536, not \(\)"),
        ({"rates": (6, 0)}, "segment.rates must be whole numbers"),
        ({"channels": 0}, "segment.channels must be at least 1"),
        ({"decoder": 0}, "segment.decoder must be at least 1"),
        ({"dice": -1.0}, "segment.dice must be at least 0, not -1"),
    ],
)
def test_options_out_of_range_are_told(changes, told):
    with pytest.raises(UserError, match=told):
        Segment(**changes)


def test_options_come_from_the_command_line():
    words = "--recipe unet_small --segment.head deeplab --segment.rates 1 2 4 --segment.decoder 2 --segment.dice 0.5"
    segment = parse(words.split()).config.segment
    assert segment == replace(RECIPES["unet_small"].segment, head="deeplab", rates=(1, 2, 4), decoder=2, dice=0.5)
    with pytest.raises(UserError, match="--segment.rates must be numbers, with spaces between them, not 'a'"):
        parse(["--segment.rates", "a"])


def test_the_network_is_the_recipes():
    unet = task().model(dtype=jnp.bfloat16)
    assert isinstance(unet, UNet) and unet.widths == (8, 8, 8) and unet.num_classes == 3
    assert unet.backbone.dtype == jnp.bfloat16
    deep = Segment("deeplab", rates=(2,), channels=8, decoder=1)
    deeplab = task(segment=deep).model(dropout=0.25)
    assert isinstance(deeplab, DeepLabV3) and (deeplab.rates, deeplab.channels, deeplab.decoder) == ((2,), 8, 1)
    assert deeplab.dropout == 0.25 and task(segment=deep).model().dropout == 0.5
    with pytest.raises(UserError, match="--dropout: U-Net has none"):
        task().model(dropout=0.1)


def test_the_loss_is_that_of_the_recipe():
    logits = jnp.asarray(RNG.standard_normal((4, 32, 32, 3)), jnp.float32)
    masks = np.where(RNG.random(MASKS.shape) < 0.2, 255, MASKS).astype(np.uint8)
    made = task(segment=Segment(dice=0.5))
    loss, right, moved = quick_jit(partial(made.loss, lambda images: (images, {"moved": 1})))((logits, masks))
    parts = quick_jit(lambda *each: (pixel_cross_entropy(*each).mean(), dice_loss(*each).mean()))(logits, masks)
    expected = parts[0] + 0.5 * parts[1]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(right, np.mean((logits.argmax(-1) == masks)[masks != 255]), rtol=1e-6)
    assert moved == {"moved": 1}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A task, its records of four images that it guesses right but for a row, and their data set, in files."""
    from PIL import Image

    root = tmp_path_factory.mktemp("set")
    for kind, arrays in (("images", IMAGES), ("masks", MASKS)):
        (root / kind / "test").mkdir(parents=True)
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(root / kind / "test" / f"{number}.png")
    (root / "classes.txt").write_text("one\ntwo\nthree\nnowhere")
    made = task(classes=4)
    guess = MASKS.copy()
    guess[:, 0] = 0
    logits = jax.nn.one_hot(guess, 4) * 9
    records = quick_jit(partial(made.record, lambda images: logits))({"image": IMAGES, "label": MASKS})
    records = {name: np.asarray(values) for name, values in records.items()} | {"index": np.arange(4)}
    return made, records, open_dataset(f"masks:{root}", "test"), guess


def test_a_test_notes_loss_confusion_and_guess(found):
    made, records, dataset, guess = found
    np.testing.assert_array_equal(records["guess"], guess)
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (MASKS[1].ravel(), guess[1].ravel()), 1)
    np.testing.assert_array_equal(records["confusion"][1], expected)
    summary = made.summarize(records, dataset)
    iou = [
        np.sum((guess == c) & (c == MASKS)) / np.sum((guess == c) | (c == MASKS)) for c in range(3)
    ]  # and none of "nowhere"
    assert summary["test_iou"] == pytest.approx(dict(zip(("one", "two", "three"), iou, strict=True)))
    assert summary["test_mean_iou"] == pytest.approx(np.mean(iou))
    assert summary["test_accuracy"] == pytest.approx(np.mean(guess == MASKS))
    assert summary["test_count"] == 4 and summary["test_loss"] == pytest.approx(records["loss"].mean())
    told = f"test mean IoU {np.mean(iou):.2%} (mean Dice {summary['test_mean_dice']:.2%}, pixels"
    assert made.told(summary).startswith(told)


def test_a_large_guess_is_kept_by_every_so_many_th_pixel():
    made = task(image_size=300)
    shape = jax.eval_shape(
        partial(made.record, lambda images: jnp.zeros((*images.shape[:3], 3))),
        {"image": jnp.zeros((2, 300, 300, 3), jnp.uint8), "label": jnp.zeros((2, 300, 300), jnp.uint8)},
    )["guess"].shape
    assert shape == (2, 100, 100)


def test_what_a_test_found_is_drawn(found, tmp_path, monkeypatch):
    made, records, dataset, guess = found
    drawn = []
    monkeypatch.setattr("cnn_jax.visualize.masks.save", lambda figure, path: (drawn.append(figure), path.touch()))
    assert made.draw(tmp_path, "net", records, dataset) == ["masks.png", "confusion.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"masks.png", "confusion.png"}
    (figure,) = drawn
    cells = [axes for axes in figure.axes if axes.images]
    assert len(cells) == 12
    shares = [np.mean(one == mask) for one, mask in zip(guess, MASKS, strict=True)]
    worst = int(np.argmin(shares))
    image, truth, guessed = cells[:3]
    assert image.get_title() == f"image {worst}"
    assert guessed.get_title() == f"guess, {100 * min(shares):.1f}% right"
    np.testing.assert_array_equal(image.images[0].get_array(), IMAGES[worst])
    for axes, mask in ((truth, MASKS[worst]), (guessed, guess[worst])):  # a colour a class, black the first
        colours = np.asarray(axes.images[0].get_array())
        assert len(np.unique(colours.reshape(-1, 3), axis=0)) == len(np.unique(mask))
        assert np.all(colours[mask == 0] == 0)


@pytest.mark.parametrize("until", ["up1", "up2"])
@pytest.mark.parametrize("model", ["lenet5_modern", "resnet20_cifar"])  # without batch norm and with
def test_what_is_frozen_stays_and_the_decoder_learns(model, until):
    """Of the decoder too, as far as it stands in front: weights and running statistics."""
    made = Program(replace(SMALL, model=model, freeze_until=until), Timeline(40, 4, 10), classes=3, channels=3)
    learning = {"up1", "up2", "up3", "head"} - ({"up1"} if until == "up2" else set())
    step, before = quick_jit(partial(train_step, made)), quick_jit(made.init)(0)
    after, _ = step(before, {"image": IMAGES, "label": MASKS, "good": np.ones(4, bool)})
    for kind in ("params", "batch_stats"):
        old, new = (flatten_dict(state.variables[kind]) for state in (before, after))
        for path, value in old.items():
            assert np.array_equal(value, new[path]) == (path[0] not in learning), path


def test_labels_of_another_kind_are_told(train_here, tmp_path):
    done = train_here("--recipe", "unet_small", "--dataset", "synthetic:8x8x3", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "synthetic:8x8x3 has labels for --task classify, and --task segment learns a mask" in done.stderr


def test_files_of_many_sizes_are_trained_on(train_here, tmp_path):
    from PIL import Image

    for split, count in (("train", 8), ("test", 3)):
        for number in range(count):
            mask = RNG.integers(0, 2, (20 + number, 30), np.uint8)
            for kind, array in (("images", np.stack([120 * mask] * 3, -1)), ("masks", mask)):
                (tmp_path / "set" / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(tmp_path / "set" / kind / split / f"{number}.png")
    small = ("--recipe", "unet_small", "--model", "lenet5_modern", "--segment.widths", 8, 8, 8, "--image-size", 32)
    done = train_here(
        *(*small, "--dataset", f"masks:{tmp_path / 'set'}", "--epochs", 1, "--batch-size", 4),
        *("--out", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    assert "test mean IoU" in done.stdout and "of 3 images" in done.stdout
    assert {*open_run(f"masks:{tmp_path / 'set'}", "train", "test")} == {"train", "test"}
