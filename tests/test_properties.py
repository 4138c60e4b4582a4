"""Every layer, augmentation, loss and metric at sizes that nobody chose, against float64 in NumPy, SciPy and Pillow.

As in use each is a program of its own, compiled with XLA's usual effort: what a compiler does to an operation hangs
on the sizes (jax-ml/jax#39103 showed itself at 40,001 rows). Hypothesis draws the sizes, the same in every run; a few
in the fast tests, many in the slow ones.
"""

from functools import partial

import jax
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from quick_jit import quick_jit
from scipy import ndimage, special
from test_policies import PILLOW

from cnn_jax import evaluation
from cnn_jax.data import augment
from cnn_jax.data.augment import color, mixing, policies
from cnn_jax.layers import (
    BatchNorm,
    Conv,
    LocalResponseNorm,
    SqueezeExcite,
    adaptive_avg_pool,
    avg_pool,
    classify,
    global_avg_pool,
    max_pool,
    zero_pad_shortcut,
)
from cnn_jax.tasks.classify import binary_cross_entropy

FEW, MANY = 2, 25
SIDES = st.sampled_from((1, 2, 3, 5, 7, 8, 11, 13, 17, 23, 31, 32, 37, 53, 67))
BATCHES = st.sampled_from((1, 2, 3, 5, 8, 9))
CHANNELS = st.sampled_from((1, 2, 3, 5, 8, 13, 31, 33))
SEEDS = st.integers(0, 2**16)
CHECKS = {}


def check(function):
    """Registers a function of hypothesis's draw."""
    CHECKS[function.__name__] = function
    return function


def run(name, examples):
    quiet = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    test = settings(max_examples=examples, derandomize=True, **quiet)(given(st.data())(lambda d: CHECKS[name](d.draw)))
    test()


def near(found, expected, of=1e-5):
    """Float32's rounding, of sums as long as they are here: a share of the largest value."""
    expected = np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=of * max(1e-3, np.abs(expected).max(initial=0)))


def numbers(draw, *shape):
    """Normal numbers around 1, float32."""
    return np.random.default_rng(draw(SEEDS)).normal(1, 2, shape).astype(np.float32)


def maps(draw, least=1):
    """A batch of feature maps with sides of `least` and more."""
    sides = SIDES.filter(lambda side: side >= least)
    return numbers(draw, draw(BATCHES), draw(sides), draw(sides), draw(CHANNELS))


def pixels(draw, channels=None, least=1):
    """A batch of uint8 images."""
    sides = SIDES.filter(lambda side: side >= least)
    shape = (draw(BATCHES), draw(sides), draw(sides), channels or draw(st.sampled_from((1, 3))))
    return np.random.default_rng(draw(SEEDS)).integers(0, 256, shape, np.uint8)


def key(draw):
    return jax.random.key(draw(SEEDS))


def windows(x, kernel, stride, dilation=(1, 1)):
    """Where each pixel of a window lies, and a slice of x for it: (i, j), slices of (B, H, W, C)."""
    sides = zip(x.shape[1:3], kernel, stride, dilation, strict=True)
    out = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in sides]
    for place in np.ndindex(*kernel):
        taps = zip(place, out, stride, dilation, strict=True)
        rows, columns = (slice(at * d, at * d + (n - 1) * s + 1, s) for at, n, s, d in taps)
        yield place, np.s_[:, rows, columns]


@check
def convolution_and_its_gradients(draw):
    groups = draw(st.sampled_from((1, 1, 2, 3, 5)))
    wide = draw(st.sampled_from((1, 1, 3, 4, 7)))  # channels of a group; 1: depthwise
    kernel, stride = draw(st.tuples(*2 * [st.integers(1, 5)])), draw(st.tuples(*2 * [st.integers(1, 3)]))
    padding = tuple(tuple(draw(st.integers(0, 2)) for _ in range(2)) for _ in range(2))
    dilation = draw(st.tuples(*2 * [st.integers(1, 3)]))
    sides = [max(draw(SIDES), d * (k - 1) + 1) for k, d in zip(kernel, dilation, strict=True)]
    x = numbers(draw, draw(BATCHES), *sides, groups * wide)
    layer = Conv(groups * draw(st.sampled_from((1, 2, 5))), kernel, stride, padding, groups, dilation)
    params = jax.jit(layer.init)(jax.random.key(0), x)
    framed = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    weights = np.asarray(params["params"]["kernel"], np.float64)
    each = layer.features // groups
    dense = np.zeros((*kernel, groups * wide, layer.features))  # the groups' kernels on a diagonal
    for g in range(groups):
        dense[:, :, g * wide : (g + 1) * wide, g * each : (g + 1) * each] = weights[..., g * each : (g + 1) * each]
    expected = sum(framed[at] @ dense[place] for place, at in windows(framed, kernel, stride, dilation))
    pull = numbers(draw, *expected.shape)

    @jax.jit
    def both(params, x):
        y, back = jax.vjp(layer.apply, params, x)
        return y, *back(pull)

    y, by_params, by_x = both(params, x)
    near(y, expected)
    back, by_kernel = np.zeros(framed.shape), np.zeros(dense.shape)
    for place, at in windows(framed, kernel, stride, dilation):
        back[at] += pull @ dense[place].T
        by_kernel[place] = np.einsum("bhwc,bhwo->co", framed[at], pull)
    (top, _), (left, _) = padding
    near(by_x, back[:, top : top + x.shape[1], left : left + x.shape[2]])
    own = [by_kernel[:, :, g * wide : (g + 1) * wide, g * each : (g + 1) * each] for g in range(groups)]
    near(by_params["params"]["kernel"], np.concatenate(own, -1))
    near(by_params["params"]["bias"], pull.sum((0, 1, 2), dtype=np.float64))


@check
def batch_norm_and_its_gradient(draw):
    x = maps(draw)
    group = draw(st.sampled_from([n for n in range(1, len(x) + 1) if len(x) % n == 0]))
    layer, channels = BatchNorm(group_size=group, momentum=0.7), x.shape[-1]
    scale, bias, pull = numbers(draw, channels), numbers(draw, channels), numbers(draw, *x.shape)
    running = {"mean": np.full(channels, 2, np.float32), "var": np.full(channels, 3, np.float32)}

    @jax.jit
    def both(x):
        def apply(x):
            variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": running}
            return layer.apply(variables, x, train=True, mutable=["batch_stats"])

        y, back, changed = jax.vjp(apply, x, has_aux=True)
        return y, changed["batch_stats"], *back(pull)

    y, stats, by_x = both(x)
    grouped = x.astype(np.float64).reshape(-1, group, *x.shape[1:])
    axes = {"axis": (1, 2, 3), "keepdims": True}
    mean, var = grouped.mean(**axes), grouped.var(**axes)
    root = np.sqrt(var + 1e-5)
    unit, gain = (grouped - mean) / root, pull.reshape(grouped.shape) * scale
    near(y, (unit * scale + bias).reshape(x.shape), of=1e-4)
    near(stats["mean"], 0.7 * 2 + 0.3 * mean.mean((0, 1, 2, 3)))
    near(stats["var"], 0.7 * 3 + 0.3 * var.mean((0, 1, 2, 3)))
    expected = (gain - gain.mean(**axes) - unit * (gain * unit).mean(**axes)) / root
    # Where few values stand behind a statistic the three terms nearly cancel, so the error is a share of the first.
    np.testing.assert_allclose(by_x, expected.reshape(x.shape), rtol=1e-3, atol=1e-4 * np.abs(gain / root).max())


@check
def local_response_norm(draw):
    x, size = 20 * maps(draw), draw(st.sampled_from((1, 2, 3, 5)))
    total = np.zeros(x.shape)
    for c in range(x.shape[-1]):
        around = x[..., max(0, c - size // 2) : c + (size - 1) // 2 + 1].astype(np.float64)
        total[..., c] = np.square(around).sum(-1)
    near(jax.jit(partial(LocalResponseNorm(size=size, alpha=1e-2).apply, {}))(x), x / (2 + 1e-2 * total) ** 0.75)


@check
def pools(draw):
    window, stride = draw(st.tuples(*2 * [st.integers(1, 4)])), draw(st.tuples(*2 * [st.integers(1, 3)]))
    pad = min(draw(st.integers(0, 2)), min(window) // 2)
    x = maps(draw, least=max(window))
    ceil = draw(st.booleans())
    # Torch's: a last window that is not whole, unless it would begin in the padding behind.
    more = [0, 0]
    for axis, (side, k, s) in enumerate(zip(x.shape[1:3], window, stride, strict=True)):
        rest = (side + 2 * pad - k) % s
        count = (side + 2 * pad - k) // s + 1
        if ceil and rest and count * s < side + pad:
            more[axis] = s - rest
    pads = ((0, 0), *((pad, pad + extra) for extra in more), (0, 0))
    wide = x.astype(np.float64)
    low = np.pad(wide, pads, constant_values=-np.inf)
    expected = np.max([low[at] for _, at in windows(low, window, stride)], 0)
    options = {"window": window, "stride": stride, "padding": pad, "ceil_mode": ceil}
    np.testing.assert_array_equal(jax.jit(partial(max_pool, **options))(x), expected)

    real = np.pad(
        np.ones(x.shape), ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=float(whole := draw(st.booleans()))
    )
    zeros, counted = np.pad(wide, pads), np.pad(real, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)))
    sums, counts = (sum(v[at] for _, at in windows(v, window, stride)) for v in (zeros, counted))
    near(jax.jit(partial(avg_pool, count_include_pad=whole, **options))(x), sums / counts)


@check
def pools_to_a_size(draw):
    x, out = maps(draw), draw(st.tuples(*2 * [st.integers(1, 7)]))
    expected = np.zeros((len(x), *out, x.shape[-1]))
    for i, j in np.ndindex(*out):
        rows, columns = (
            slice(n * side // o, -(-(n + 1) * side // o)) for n, side, o in zip((i, j), x.shape[1:3], out, strict=True)
        )
        expected[:, i, j] = x[:, rows, columns].mean((1, 2), dtype=np.float64)
    near(jax.jit(partial(adaptive_avg_pool, output_size=out))(x), expected)
    near(jax.jit(global_avg_pool)(x), x.mean((1, 2), dtype=np.float64))


@check
def squeeze_and_excitation(draw):
    x, layer = maps(draw), SqueezeExcite(draw(st.sampled_from((1, 2, 16))))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    reduce, expand = (
        {name: np.asarray(values, np.float64) for name, values in variables["params"][layer].items()}
        for layer in ("reduce", "expand")
    )
    hidden = np.maximum(x.mean((1, 2), dtype=np.float64) @ reduce["kernel"] + reduce["bias"], 0)
    near(
        jax.jit(layer.apply)(variables, x), x * special.expit(hidden @ expand["kernel"] + expand["bias"])[:, None, None]
    )


@check
def the_classifier_and_the_shortcut_of_zeros(draw):
    import flax.linen as nn

    class Head(nn.Module):
        @nn.compact
        def __call__(self, x):
            return classify(x, 11, train=False)

    x, stride = maps(draw), draw(st.integers(1, 3))
    variables = jax.jit(Head().init)(jax.random.key(0), x)
    weights = np.asarray(variables["params"]["head"]["kernel"], np.float64)
    near(jax.jit(Head().apply)(variables, x), (x @ weights).mean((1, 2)))
    new = draw(st.integers(0, 5))
    expected = np.zeros((*x[:, ::stride, ::stride].shape[:3], x.shape[-1] + new))
    expected[..., new // 2 : new // 2 + x.shape[-1]] = x[:, ::stride, ::stride]
    shortcut = partial(zero_pad_shortcut, features=x.shape[-1] + new, stride=stride)
    np.testing.assert_array_equal(jax.jit(shortcut)(x), expected)


def triangles(side, start, length, out):
    """(out, side): `length` pixels from `start` on resized to `out`; Pillow's BILINEAR, smoothed where it shrinks."""
    scale = length / out
    middles = start + (np.arange(out) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(middles[:, None] - np.arange(side)) / max(scale, 1))
    return weights / weights.sum(1, keepdims=True)


def resized(image, box, out):
    """The part of an (H, W, C) image in the box (top, left, height, width), as `out`."""
    (top, left, height, width), (rows, columns, _) = np.asarray(box, np.float64), image.shape
    return np.einsum(
        "ih,hwc,jw->ijc", triangles(rows, top, height, out[0]), image, triangles(columns, left, width, out[1])
    )


@check
def fitted_images(draw):
    images, out = pixels(draw), draw(st.tuples(SIDES, SIDES))
    target = np.minimum(images.shape[1:3], out)
    inner = np.stack([resized(image, (0, 0, *image.shape[:2]), target) for image in images])
    found = np.asarray(jax.jit(partial(augment.fit, size=out))(images), np.float64)
    top, left = ((np.array(out) - target) // 2).tolist()
    middle = np.s_[:, top : top + target[0], left : left + target[1]]
    assert np.abs(found[middle] - inner).max() <= 0.5 + 1e-3  # rounded
    found[middle] = 0
    assert found.shape == (len(images), *out, images.shape[-1]) and not found.any()


@check
def random_crops(draw):
    images, out, k = pixels(draw, least=2), draw(st.tuples(SIDES, SIDES)), key(draw)
    size = images.shape[1:3]
    boxes = np.asarray(
        jax.jit(partial(augment.crop_boxes, count=len(images), size=size, scale=(0.08, 1), ratio=(0.75, 4 / 3)))(k)
    )
    assert (boxes == np.round(boxes)).all() and (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= size).all()
    expected = [resized(image, box, out) for image, box in zip(images, boxes, strict=True)]
    near(jax.jit(partial(augment.random_resized_crop, size=out))(k, images), np.stack(expected))

    pad = draw(st.integers(0, 3))
    framed = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for whole, crop in zip(framed, np.asarray(jax.jit(partial(augment.pad_crop, pad=pad))(k, images)), strict=True):
        places = np.ndindex(2 * pad + 1, 2 * pad + 1)
        assert any(np.array_equal(crop, whole[i : i + size[0], j : j + size[1]]) for i, j in places)
    for image, flipped in zip(images, np.asarray(jax.jit(augment.flip)(k, images)), strict=True):
        assert np.array_equal(flipped, image) or np.array_equal(flipped, image[:, ::-1])


@check
def jittered_scales(draw):
    images, out, k = pixels(draw, least=2), draw(st.tuples(SIDES, SIDES)), key(draw)
    sides = (max(out), 1.5 * max(out))
    one, other = jax.random.split(k)
    side = np.asarray(jax.random.uniform(one, (len(images), 1), minval=sides[0], maxval=sides[1]), np.float64)
    full = np.array(images.shape[1:3])
    crop = np.array(out) * full.min() / side
    corner = np.asarray(jax.random.uniform(other, crop.shape), np.float64) * (full - crop)
    boxes = np.concatenate([corner, crop], 1)
    expected = np.stack([resized(image, box, out) for image, box in zip(images, boxes, strict=True)])
    near(jax.jit(partial(augment.scale_jitter, size=out, sides=sides))(k, images), expected, of=1e-4)


def read(images, places):
    """SciPy's bilinear interpolation at (B, 2, H', W') places, black outside."""
    at = partial(ndimage.map_coordinates, order=1, mode="grid-constant")
    return np.stack(
        [
            np.stack([at(channel, place) for channel in np.moveaxis(image, -1, 0)], -1)
            for image, place in zip(images.astype(np.float64), places, strict=True)
        ]
    )


@check
def affine_maps(draw):
    images, k = pixels(draw), key(draw)
    amounts = {"rotate": 25.0, "translate": 3.0, "scale": 0.2, "shear": 0.3}
    u = np.asarray(jax.random.uniform(k, (len(images), 6), minval=-1.0, maxval=1.0), np.float64)
    centre = (np.array(images.shape[1:3]) - 1) / 2
    grid = np.stack(np.meshgrid(*map(np.arange, images.shape[1:3]), indexing="ij"), -1) - centre
    places = []
    for a, *shift, fy, fx, slant in u:
        turn = np.deg2rad(25 * a)
        matrix = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]] @ np.array([[1, 0], [0.3 * slant, 1]])
        matrix = matrix / (1 + 0.2 * np.array([fy, fx]))[:, None]
        places.append(np.moveaxis((grid - 3 * np.array(shift)) @ matrix.T + centre, -1, 0))
    near(jax.jit(partial(augment.random_affine, **amounts))(k, images), read(images, places), of=1e-3)


@check
def elastic_fields(draw):
    images, k = pixels(draw), key(draw)
    size = images.shape[1:3]
    noise = np.asarray(jax.random.uniform(k, (len(images), 2, *size), minval=-1.0, maxval=1.0), np.float64)
    bells = [
        np.exp(-(np.subtract.outer(np.arange(n), np.arange(n)) ** 2) / 18) / (3 * np.sqrt(2 * np.pi)) for n in size
    ]
    field = 20 * np.einsum("ih,bnhw,jw->bnij", bells[0], noise, bells[1])
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij")) + field
    near(jax.jit(partial(augment.elastic, alpha=20.0, sigma=3.0))(k, images), read(images, places), of=1e-3)


@check
def colours(draw):
    images, k = pixels(draw, channels=3), key(draw)
    wide, amount = images.astype(np.float64), draw(st.sampled_from((0.5, 0.9, 1.3)))

    def hsv(change):
        found = rgb_to_hsv(wide / 255)
        return 255 * hsv_to_rgb(change(found))

    expected = {
        "brightness": (20 * amount, wide + 20 * amount),
        "saturation": (amount, hsv(lambda c: np.minimum(c * (1, amount, 1), 1))),
        "hue": (0.1 * amount, hsv(lambda c: (c + np.array([0.1 * amount, 0, 0])) % (1, 2, 2))),
        "contrast": (amount, wide.mean((1, 2), keepdims=True) * (1 - amount) + wide * amount),
    }
    steps = jax.jit(
        lambda images: [jax.vmap(partial(color.STEPS[n], amount=a))(images) for n, (a, _) in expected.items()]
    )
    for found, (_, wanted) in zip(steps(images.astype(np.float32)), expected.values(), strict=True):
        near(found, wanted)
    alpha = 0.1 * np.asarray(jax.random.normal(k, (len(images), 3)), np.float64)
    shift = 255 * (alpha * color.EIGENVALUES) @ np.array(color.EIGENVECTORS).T
    near(jax.jit(augment.pca_color)(k, images), wide + shift[:, None, None])
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    near(jax.jit(partial(augment.normalize, mean=mean, std=std))(images), (wide / 255 - mean) / std)


@check
def mixed_images(draw):
    images, k = pixels(draw), key(draw)
    batch = len(images)
    labels, before = np.eye(batch, dtype=np.float32), np.roll(images, 1, 0)
    # In a hurry: the draws of a beta distribution take long to compile. The arithmetic is compiled as in use after it.
    mixed, of = quick_jit(partial(augment.mixup, alpha=0.4))(k, images, labels)
    share = np.diag(of)[:, None, None, None]
    near(mixed, share * images.astype(np.float64) + (1 - share.astype(np.float64)) * before)
    near(jax.jit(mixing.blend)(images, share), mixed)
    cutmix = quick_jit(partial(augment.cutmix, alpha=1.0))
    found, of = map(np.asarray, cutmix(k, images, labels))
    numbered = np.broadcast_to(np.arange(batch, dtype=np.uint8)[:, None, None, None], images.shape)
    whose = np.asarray(cutmix(k, numbered, labels)[0]) == numbered
    np.testing.assert_array_equal(found, np.where(whose, images, before))
    own = whose.mean((1, 2, 3))[:, None]
    near(of, own * labels + (1 - own) * np.roll(labels, 1, 0))
    kept = np.asarray(quick_jit(augment.random_erasing)(k, images))
    erased = (kept != images).any(-1)
    assert kept.min() >= 0 and kept.max() <= 255
    for rows, columns in ((mask.any(1), mask.any(0)) for mask in erased):
        area = np.ptp(np.flatnonzero(rows)) + 1 if rows.any() else 0
        assert area <= images.shape[1] and columns.sum() <= images.shape[2]


@check
def the_policies_operations(draw):
    images = pixels(draw)[:1]
    values = {"Rotate": 17.0, "Solarize": 100.0, "Posterize": 5.0}
    image = Image.fromarray(images[0].squeeze(-1) if images.shape[-1] == 1 else images[0])
    names = [name for name in policies.OPERATIONS if name in PILLOW]
    given = np.array([values.get(name, 0.3) for name in names], np.float32)
    numbers = np.array([policies.PLACE[name] for name in names])
    found = np.asarray(jax.jit(policies.operate)(np.repeat(images, len(names), 0), numbers, given), int)
    for name, value, own in zip(names, given, found, strict=True):
        wanted = np.asarray(PILLOW[name](image, float(value)), int).reshape(own.shape)
        different = np.abs(own - wanted)
        if name in policies.WARPS:  # a pixel whose place lies on an edge may fall to either side
            assert (different > 0).mean() < 0.02 + 2 / different.size
        else:
            assert different.max() <= 1, name


@check
def losses_and_records(draw):
    batch, classes = draw(st.sampled_from((1, 3, 17, 255, 1003))), draw(st.sampled_from((2, 3, 10, 101, 1000)))
    rng = np.random.default_rng(draw(SEEDS))
    logits = rng.normal(0, 4, (batch, classes)).astype(np.float32)
    labels, shares = rng.integers(0, classes, batch), rng.dirichlet(np.ones(classes), batch).astype(np.float32)
    wide = logits.astype(np.float64)
    log = wide - special.logsumexp(wide, -1, keepdims=True)
    records = {name: np.asarray(values) for name, values in jax.jit(evaluation.predictions)(logits, labels).items()}
    own = log[np.arange(batch), labels]
    near(records["loss"], -own)
    near(records["confidence"], np.exp(log).max(-1))
    np.testing.assert_array_equal(records["guess"], wide.argmax(-1))
    np.testing.assert_array_equal(records["top1"], wide.argmax(-1) == labels)
    np.testing.assert_array_equal(records["top5"], (log > own[:, None]).sum(-1) < 5)
    near(jax.jit(optax.softmax_cross_entropy)(logits, shares), -(shares * log).sum(-1))
    for threshold in (None, 0.2):
        wanted = shares if threshold is None else shares > np.float32(threshold)
        every = wanted * np.logaddexp(0, -wide) + (1 - wanted) * np.logaddexp(0, wide)
        near(jax.jit(partial(binary_cross_entropy, threshold=threshold))(logits, shares), every.mean(-1))

    summary = evaluation.summarize(records)
    assert summary["test_top1"] == records["top1"].mean() and summary["test_count"] == batch
    assert summary["test_loss"] == pytest.approx(-own.mean(), rel=1e-5)
    confusion = evaluation.confusion_matrix(labels, records["guess"], classes)
    assert confusion.sum() == batch and np.diag(confusion).sum() == records["top1"].sum()
    np.testing.assert_array_equal(confusion.sum(1), np.bincount(labels, minlength=classes))
    error = 0.0
    bins = np.ceil(records["confidence"].astype(np.float64) * 15).clip(1, 15)
    for number in np.unique(bins):
        there = bins == number
        error += abs(records["top1"][there].mean() - records["confidence"][there].mean(dtype=np.float64)) * there.mean()
    assert evaluation.calibration_error(records["confidence"], records["top1"]) == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("name", CHECKS)
def test_a_few_sizes_are_right(name):
    run(name, 1 if name in ("mixed_images", "random_crops") else FEW)  # their draws take long to compile


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_many_sizes_are_right(name):
    run(name, MANY)
