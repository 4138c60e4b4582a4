"""Views against Pillow and slices written out; averages against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnn_jax import UserError, create_model
from cnn_jax.data.augment import fit, normalize
from cnn_jax.evaluation import PROTOCOLS, make_protocol, predict
from cnn_jax.models import alexnet, vgg, zfnet

RNG = np.random.default_rng(0)


def picture(height, width, channels=3):
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


def views(name, pixels, size=224, resize=256, interpolation="bilinear"):
    return make_protocol(name, size, resize, interpolation).views(pixels)


@pytest.mark.parametrize(
    ("size", "shorter", "interpolation"),
    [
        (224, 256, "bilinear"),
        (227, 256, "bilinear"),
        (224, 235, "bicubic"),
        (32, 32, "bilinear"),
        (224, 232, "bilinear"),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(300, 401), (401, 300), (90, 131)])
def test_center_is_torchvisions_resize_and_center_crop(height, width, size, shorter, interpolation):
    pixels = picture(height, width)
    # torchvision.transforms.Resize and CenterCrop on a PIL image.
    new = tuple(int(shorter * side / min(height, width)) for side in (width, height))
    resized = Image.fromarray(pixels).resize(new, getattr(Image.Resampling, interpolation.upper()))
    left, top = round((new[0] - size) / 2), round((new[1] - size) / 2)
    expected = np.asarray(resized.crop((left, top, left + size, top + size)))
    (found,) = views("center", pixels, size, shorter, interpolation)
    np.testing.assert_array_equal(found, expected[None])


def test_ten_crop_takes_corners_and_centre_of_the_central_square():
    pixels = picture(256, 300)  # at 256 already: the resize changes nothing
    square = pixels[:, 22:278]
    (found,) = views("ten_crop", pixels)
    for view, (top, left) in zip(found, [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)], strict=True):
        np.testing.assert_array_equal(view, square[top : top + 224, left : left + 224])


@pytest.mark.parametrize("portrait", [False, True])
def test_googlenets_views_are_those_of_section_7(portrait):
    pixels = picture(256, 384)
    (found,) = views("googlenet_144", np.swapaxes(pixels, 0, 1) if portrait else pixels)
    assert found.shape == (72, 224, 224, 3)  # 4 x 3 x 6, and mirrored
    for i, start in enumerate((0, 64, 128)):  # left, centre, right; or top, centre, bottom
        square = pixels[:, start : start + 256]
        square = np.swapaxes(square, 0, 1) if portrait else square
        for view, (top, left) in zip(
            found[6 * i : 6 * i + 5], [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)], strict=True
        ):
            np.testing.assert_array_equal(view, square[top : top + 224, left : left + 224])
        resized = Image.fromarray(square).resize((224, 224), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found[6 * i + 5], np.asarray(resized))
    # The other scales: the corner of the first square.
    for k, side in enumerate((288, 320, 352), start=1):
        long = int(side * 384 / 256)
        image = Image.fromarray(np.swapaxes(pixels, 0, 1) if portrait else pixels)
        image = image.resize((side, long) if portrait else (long, side), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found[18 * k], np.asarray(image)[:224, :224])
        np.testing.assert_array_equal(found[18 * k + 12], np.asarray(image)[-side:, -side:][:224, :224])


def test_other_networks_see_googlenets_scales_in_proportion():
    (found,) = views("googlenet_144", picture(299 * 8 // 7, 299 * 8 // 7), size=299)
    assert found.shape == (72, 299, 299, 3)


@pytest.mark.parametrize(
    ("name", "resize", "scales"),
    [
        ("dense", 256, [256]),
        ("dense", 384, [384]),
        ("multi_scale", 256, [224, 256, 288]),
        ("multi_scale", 384, [352, 384, 416]),
        ("multi_scale_jittered", 256, [256, 384, 512]),
        ("multi_scale_resnet", 256, [224, 256, 384, 480, 640]),
    ],
)
def test_dense_scales_are_the_papers(name, resize, scales):
    found = views(name, picture(100, 130), resize=resize)
    assert [view.shape[:2] for view in found] == [(1, scale) for scale in scales]
    for view, scale in zip(found, scales, strict=True):
        width = view.shape[2]
        assert (width - scale) % 32 == 0 and 0 <= int(scale * 1.3) - width < 32


@pytest.mark.parametrize(
    ("shape", "left"),
    [
        ((256, 256), (256, 256)),
        ((287, 256), (256, 256)),
        ((256, 288), (256, 288)),
        ((256, 999), (256, 512)),
    ],
)
def test_few_shapes_are_left_for_dense_evaluation(shape, left):
    pixels = picture(*shape)
    (found,) = views("dense", pixels)
    assert found.shape == (1, *left, 3)
    top, start = (round((a - b) / 2) for a, b in zip(shape, left, strict=True))
    np.testing.assert_array_equal(found[0], pixels[top : top + left[0], start : start + left[1]])


def scripted(variables, images, *, train):
    """Logits that depend on the left and right halves of an image."""
    assert not train
    width = images.shape[2] // 2
    return jnp.stack([3 * images[:, :, :width].mean((1, 2, 3)), -images[:, :, width:].mean((1, 2, 3))], -1)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_probabilities_are_averaged_over_all_views_after_the_softmax(name):
    pixels = [picture(80, 100) // np.uint8(i + 1) for i in range(3)]
    protocol = make_protocol(name, 64, 73, "bilinear")
    labels, mean, std = np.array([0, 1, 0]), (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)
    seen = [protocol.views(image) for image in pixels]
    batch = [np.stack(group) for group in zip(*seen, strict=True)]
    records = predict({}, batch, labels, apply=scripted, protocol=protocol, mean=mean, std=std)
    for i, groups in enumerate(seen):
        total, count = np.zeros(2), 0
        for view in (view for group in groups for view in group):
            framed = np.asarray(fit(view[None], (64, 64))[0]) if name == "fit" else view
            for image in [framed, framed[:, ::-1]] if name not in ("fit", "center") else [framed]:
                x = (image / 255 - mean) / std
                half = x.shape[1] // 2
                e = np.exp([3 * x[:, :half].mean(), -x[:, half:].mean()])
                total, count = total + e / e.sum(), count + 1
        probability = total / count
        assert protocol.places(groups) > 0
        if not protocol.dense:
            assert count == protocol.places(groups)
        np.testing.assert_allclose(records["loss"][i], -np.log(probability[labels[i]]), rtol=1e-4)
        np.testing.assert_allclose(records["confidence"][i], probability.max(), rtol=1e-4)
        assert records["guess"][i] == probability.argmax()


def test_counts_of_views_are_the_papers():
    counts = {"fit": 1, "center": 1, "ten_crop": 10, "googlenet_144": 144, "dense": 2, "multi_scale": 6}
    for name, count in counts.items():
        protocol = make_protocol(name, 224, 256, "bilinear")
        found = sum(len(group) for group in protocol.views(picture(60, 60)))
        assert found * (2 if protocol.mirror else 1) == count


def test_fit_is_what_training_evaluates():
    images = RNG.integers(0, 256, (2, 20, 44, 1), np.uint8)  # framed one way, shrunk the other
    protocol = make_protocol("fit", 32, 36, "bilinear")
    seen = []
    keep = lambda variables, x, *, train: (seen.append(x), jnp.zeros((2, 3)))[1]
    batch = [np.stack([protocol.views(image)[0] for image in images])]
    predict({}, batch, np.zeros(2, int), apply=keep, protocol=protocol, mean=(0.1,), std=(0.3,))
    np.testing.assert_array_equal(seen[0], normalize(fit(images, (32, 32)), (0.1,), (0.3,)))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("centre", "unknown protocol 'centre'; did you mean center?"),
        ("ten_crop", "ten_crop takes crops of 224 pixels, which a shorter side of 200 has not"),
    ],
)
def test_mistakes_are_told(name, line):
    with pytest.raises(UserError, match=line):
        make_protocol(name, 224, 200, "bilinear")


def narrow(name, monkeypatch):
    """A network with few channels and all its geometry, and the side of its pool5 under fc6."""
    monkeypatch.setattr(vgg, "WIDTHS", (2, 3, 4, 4, 6))
    for module in (vgg, alexnet, zfnet):
        monkeypatch.setitem(module.STEMS, "imagenet", (*module.STEMS["imagenet"][:-1], 16))
    options = {} if name == "vgg11" else {"widths": (4, 8, 8, 8, 6)}
    return create_model(name, num_classes=5, dense=True, **options), 7 if name == "vgg11" else 6


def drawn(model, images):
    """Variables of the size that keeps activations near 1."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(images[:1]), train=False))
    draw = lambda leaf: RNG.standard_normal(leaf.shape, np.float32) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
    return jax.tree.map(draw, shapes)


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "alexnet_owt", "zfnet"])
def test_dense_evaluation_slides_the_fully_connected_layers_over_the_map(name, monkeypatch):
    model, side = narrow(name, monkeypatch)
    images = RNG.standard_normal((2, 256, 320, 3)).astype(np.float32)
    variables = drawn(model, images)
    logits, state = jax.jit(
        lambda v, x: model.apply(v, x, train=False, mutable=["intermediates"], capture_intermediates=lambda *_: False)
    )(variables, images)
    pool5 = np.asarray(state["intermediates"]["taps"]["pool5"], np.float64)
    layers = [variables["params"][layer] for layer in ("fc6", "fc7", "head")]
    (w6, b6), (w7, b7), (w8, b8) = ((layer["kernel"].astype(np.float64), layer["bias"]) for layer in layers)
    scores = []
    for i in range(pool5.shape[1] - side + 1):
        for j in range(pool5.shape[2] - side + 1):
            window = pool5[:, i : i + side, j : j + side].reshape(2, -1)
            hidden = np.maximum(window @ w6.reshape(-1, 16) + b6, 0)
            scores.append(np.maximum(hidden @ w7 + b7, 0) @ w8 + b8)
    assert len(scores) > 2
    expected = np.mean(scores, 0)  # scores, not probabilities: Simonyan 2014, sec. 3.2
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max() + 1e-6


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "zfnet"])
def test_at_its_own_size_a_dense_network_is_the_network(name, monkeypatch):
    model, _ = narrow(name, monkeypatch)
    size = 227 if name == "alexnet" else 224
    images = RNG.standard_normal((2, size, size, 3)).astype(np.float32)
    variables = drawn(model, images)
    logits = [
        jax.jit(lambda v, x, m=m: m.apply(v, x, train=False))(variables, images)
        for m in (model, model.clone(dense=False))
    ]
    np.testing.assert_array_equal(*logits)
