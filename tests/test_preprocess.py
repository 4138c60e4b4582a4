import json
from dataclasses import asdict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_jit

from cnn_jax.data import augment
from cnn_jax.data.augment import make_mixing, make_preprocess, normalize, preprocess
from cnn_jax.errors import UserError
from cnn_jax.recipes import RECIPES, Augment
from cnn_jax.recipes.command_line import parse
from cnn_jax.recipes.configuration import to_json

KEY = jax.random.key(0)
DIGITS = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
PHOTOS = np.random.default_rng(1).integers(0, 256, (4, 40, 48, 3), np.uint8)
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def test_normalize_is_the_formula():
    images = np.array([0, 127, 255], np.uint8).reshape(1, 1, 1, 3)
    expected = (np.array([0, 127, 255]) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    np.testing.assert_allclose(normalize(images, MEAN, STD)[0, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("recipe", ["lenet5_modern", "lenet5_1998"])
def test_the_digits_of_lenets_recipes_are_fitted_then_moved_by_the_key_itself_then_normalized(recipe):
    """Bit for bit: the results of the README depend on it."""
    see = make_preprocess((32, 32), (0.1,), (0.3,), asdict(RECIPES[recipe].augment))
    framed = np.pad(DIGITS, ((0, 0), (2, 2), (2, 2), (0, 0)))
    moved = augment.random_affine(KEY, jnp.asarray(framed), rotate=10.0, translate=2.0, scale=0.12, shear=0.1)
    np.testing.assert_array_equal(see(DIGITS, KEY), normalize(moved, (0.1,), (0.3,)))
    np.testing.assert_array_equal(see(DIGITS, None), normalize(jnp.asarray(framed), (0.1,), (0.3,)))


# Every option, what it calls, with what after key and images, and by which key: fold_in(key, number) or the key itself.
STEPS = [
    (
        {"crop": "random_resized", "crop_scale": (0.3, 0.6)},
        "random_resized_crop",
        [(24, 32), (0.3, 0.6), (0.75, 4 / 3)],
        1,
    ),
    ({"crop": "scale_jitter", "jitter": (36, 44)}, "scale_jitter", [(24, 32), (36, 44)], 1),
    ({"shear": 0.1}, "random_affine", [{"rotate": 0, "translate": 0, "scale": 0, "shear": 0.1}], None),
    ({"elastic": 20, "elastic_sigma": 3}, "elastic", [20, 3], 2),
    ({"pad": 3}, "pad_crop", [3], 3),
    ({"flip": True}, "flip", [], 4),
    ({"policy": "randaugment", "policy_magnitude": 7}, "randaugment", [2, 7], 5),
    ({"policy": "autoaugment"}, "autoaugment", [], 5),
    ({"color": "pca"}, "pca_color", [], 6),
    ({"color": "inception"}, "color_distortion", [], 6),
    ({"erase": 0.4}, "random_erasing", [0.4], 7),
]


@pytest.fixture
def calls(monkeypatch):
    """What make_preprocess's functions are called with; they add one to the images instead, and crops cut."""
    made = []

    def stand_in(name, key, images, *args, **amounts):
        made.append((name, [*args, amounts] if amounts else list(args), jax.random.key_data(key).tolist()))
        return (images[:, :24, :32] if name in ("random_resized_crop", "scale_jitter") else images) + 1.0

    for _, name, _, _ in STEPS:
        monkeypatch.setattr(preprocess, name, partial(stand_in, name))
    return made


def key_of(number):
    return jax.random.key_data(KEY if number is None else jax.random.fold_in(KEY, number)).tolist()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[1])
def test_an_option_does_one_thing_after_fit_and_before_normalize(step, calls):
    options, name, args, number = step
    ours = make_preprocess((24, 32), MEAN, STD, asdict(Augment(**options)))(PHOTOS, KEY)
    assert calls == [(name, args, key_of(number))]
    before = PHOTOS[:, :24, :32] if "crop" in options else augment.fit(PHOTOS, (24, 32))
    np.testing.assert_allclose(ours, normalize(before + 1.0, MEAN, STD), atol=1e-6)


def test_the_steps_have_one_order_and_evaluation_has_none_of_them(calls):
    together = [step for step in STEPS if step[1] not in ("scale_jitter", "autoaugment", "color_distortion")]
    chosen = {key: value for options, *_ in together for key, value in options.items()}
    see = make_preprocess((24, 32), MEAN, STD, asdict(Augment(**chosen)))
    see(PHOTOS, None)
    assert calls == []
    see(PHOTOS, KEY)
    assert calls == [(name, args, key_of(number)) for _, name, args, number in together]


@pytest.mark.parametrize("crop", ["random_resized", "scale_jitter"])
def test_what_the_host_has_cropped_is_not_cropped_again(crop, calls):
    options = asdict(Augment(crop=crop, flip=True))
    ours = make_preprocess((24, 32), MEAN, STD, options, cropped=True)(PHOTOS[:, :24, :32], KEY)
    assert [name for name, _, _ in calls] == ["flip"]
    np.testing.assert_allclose(ours, normalize(PHOTOS[:, :24, :32] + 1.0, MEAN, STD), atol=1e-6)


AUGMENTATIONS = {
    "fit": lambda key, images: augment.fit(images, (24, 32)),
    "affine": lambda key, images: augment.random_affine(key, images, rotate=20, translate=3, scale=0.2, shear=0.1),
    "elastic": augment.elastic,
    "flip": augment.flip,
    "pad_crop": lambda key, images: augment.pad_crop(key, images, 4),
    "random_resized_crop": lambda key, images: augment.random_resized_crop(key, images, (24, 32)),
    "scale_jitter": lambda key, images: augment.scale_jitter(key, images, (24, 32), (36, 44)),
    "pca_color": augment.pca_color,
    "color_distortion": augment.color_distortion,
    "random_erasing": augment.random_erasing,
    "randaugment": augment.randaugment,
    "autoaugment": augment.autoaugment,
    "mixup": lambda key, images: augment.mixup(key, images, np.eye(8), 0.4)[0],
    "cutmix": lambda key, images: augment.cutmix(key, images, np.eye(8), 1.0)[0],
}


@pytest.fixture(scope="module", params=AUGMENTATIONS)
def made(request):
    """An augmentation's name and what it makes of one photo eight times: uint8, bfloat16, again, by another key."""
    both = quick_jit(
        lambda key, images: [AUGMENTATIONS[request.param](key, images.astype(t)) for t in ("u1", "bfloat16")]
    )
    images = np.repeat(PHOTOS[:1], 8, 0)
    return request.param, *both(KEY, images), both(KEY, images)[0], both(jax.random.key(1), images)[0]


def test_bfloat16_images_stay_bfloat16_and_are_computed_in_float32(made):
    name, whole, half, *_ = made
    assert half.dtype == jnp.bfloat16
    assert whole.dtype == (jnp.uint8 if name in ("fit", "flip", "pad_crop", "cutmix") else jnp.float32)
    np.testing.assert_allclose(half.astype(jnp.float32), whole, rtol=2**-8, atol=1e-3)  # rounded once, to 8 bits


def test_each_image_has_its_own_draws_which_the_key_decides(made):
    name, images, _, again, other = made
    np.testing.assert_array_equal(images, again)
    if name not in ("fit", "mixup", "cutmix"):  # mixing one photo with itself shows nothing
        assert len({image.tobytes() for image in np.asarray(images)}) > (1 if name == "flip" else 4)
        assert not np.array_equal(images, other)


def test_mixing_is_off_or_one_kind_or_either_about_equally_often(monkeypatch):
    assert make_mixing(asdict(Augment())) is None
    monkeypatch.setattr(preprocess, "mixup", lambda key, images, labels, alpha: (images + alpha, labels))
    monkeypatch.setattr(preprocess, "cutmix", lambda key, images, labels, alpha: (images, labels - alpha))
    images, labels = jnp.zeros((2, 1, 1, 1)), jnp.ones((2, 2))
    by_mixup, by_cutmix = (0.25, 1), (0, 0.5)
    for options, allowed in (({"mixup": 0.25}, {by_mixup}), ({"cutmix": 0.5}, {by_cutmix})):
        mixed = make_mixing(asdict(Augment(**options)))(KEY, images, labels)
        assert {(mixed[0].max().item(), mixed[1].max().item())} == allowed
    either = quick_jit(jax.vmap(make_mixing(asdict(Augment(mixup=0.25, cutmix=0.5))), (0, None, None)))
    mixed = either(jax.random.split(KEY, 400), images, labels)
    drawn = list(zip(mixed[0].max((1, 2, 3, 4)).tolist(), mixed[1].max((1, 2)).tolist(), strict=True))
    assert set(drawn) == {by_mixup, by_cutmix}
    assert 160 < drawn.count(by_mixup) < 240  # 200 +- 4 standard deviations


def test_options_survive_the_command_line_and_json(tmp_path):
    line = (
        "--augment.rotate 5 --augment.elastic 5 --augment.crop random_resized --augment.crop-scale 0.25 1 "
        "--augment.flip --augment.jitter 256 512 --augment.pad 2 --augment.policy randaugment "
        "--augment.policy-magnitude 12 --augment.color pca --augment.erase 0.25 --augment.mixup 0.2"
    )
    command = parse(line.split())
    made = command.config.augment
    assert (made.crop, made.crop_scale, made.jitter, made.flip) == ("random_resized", (0.25, 1.0), (256, 512), True)
    assert (made.pad, made.policy, made.policy_magnitude, made.color) == (2, "randaugment", 12, "pca")
    assert (made.elastic, made.erase, made.mixup, made.cutmix) == (5, 0.25, 0.2, 0)
    (tmp_path / "c.json").write_text(json.dumps(to_json(command.recipe, command.config)))
    assert parse(["--config", str(tmp_path / "c.json")]).config == command.config
    assert parse(["--config", str(tmp_path / "c.json"), "--augment.crop", "None"]).config.augment.crop is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Augment(elastic=-1), "augment.elastic must be at least 0, not -1"),
        (lambda: Augment(elastic_sigma=0), "augment.elastic-sigma must be at least 0.5, not 0"),
        (
            lambda: Augment(crop_scale=(0.5, 2)),
            "augment.crop-scale must be two numbers above 0 and at most 1, the smaller first, not (0.5, 2)",
        ),
        (
            lambda: Augment(crop_ratio=(2, 1)),
            "augment.crop-ratio must be two numbers above 0 and at most 100, the smaller first, not (2, 1)",
        ),
        (
            lambda: Augment(jitter=(256,)),
            "augment.jitter must be two numbers above 0 and at most 4,096, the smaller first, not (256,)",
        ),
        (lambda: Augment(pad=-1), "augment.pad must be at least 0 and at most 4,096, not -1"),
        (lambda: Augment(policy_count=0), "augment.policy-count must be at least 1 and at most 14, not 0"),
        (lambda: Augment(policy_magnitude=31), "augment.policy-magnitude must be at least 0 and at most 30, not 31"),
        (lambda: Augment(erase=1.5), "augment.erase must be at least 0 and at most 1, not 1.5"),
        (lambda: Augment(mixup=-0.1), "augment.mixup must be at least 0, not -0.1"),
        (lambda: Augment(cutmix=float("nan")), "augment.cutmix must be a finite number, not nan"),
    ],
)
def test_options_out_of_range_are_told_in_one_line(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value) == message


def test_an_option_that_the_images_cannot_have_is_told_when_the_step_is_traced():
    with pytest.raises(UserError, match="PCA colour needs images of 3 channels, not 1"):
        jax.eval_shape(make_preprocess((32, 32), (0.1,), (0.3,), asdict(Augment(color="pca"))), DIGITS, KEY)
