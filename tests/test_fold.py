"""Folded networks against those they came from, with statistics and parameters far from 0 and 1."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from quick_jit import quick_apply, quick_jit
from test_models import SMALL

from cnn_jax import UserError, create_model, extract_features, fold_batch_norm, list_models, model_info
from cnn_jax.layers import BatchNorm, Conv, ConvBN, tap

# Most gains are below 1: a deep network that magnifies layer by layer magnifies each rounding, too.
RANGES = {"scale": (-1.5, 1.5), "bias": (-1, 1), "mean": (-1, 1), "var": (0.5, 4)}


def drawn(model, images):
    """Variables as after a long training: kernels that keep the size of activations, the rest uniform in RANGES."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    rng = np.random.default_rng(1)
    values = {
        path: rng.uniform(*RANGES[path[-1]], leaf.shape).astype(np.float32)
        if path[-1] in RANGES
        else rng.standard_normal(leaf.shape, np.float32) * (2 / np.prod(leaf.shape[:-1])) ** 0.5
        for path, leaf in flatten_dict(shapes).items()
    }
    return unflatten_dict(values)


def assert_near(found, expected, rounding=2e-5):  # float32 through 150 layers, in shares of the largest value
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=rounding * np.abs(b).max(), equal_nan=False),
        found,
        expected,
    )


def small(name, **options):
    """The network at 32 pixels with ten classes, its variables and two images."""
    stem = {"stem": "cifar"} if "stem" in type(create_model(name)).__dataclass_fields__ else {}
    model = create_model(name, **SMALL.get(name, stem) | {"num_classes": 10} | options)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, model_info(name).input_size[-1]), np.float32)
    return model, drawn(model, images), images


def seen(model, variables, images):
    """The logits and all taps."""
    return quick_apply(model, variables, images, train=False, mutable=["intermediates"])


NORMED = [name for name in list_models() if getattr(create_model(name), "norm", None) is not None]
# Convolutions with a bias and without; depthwise, grouped; branches; norms that stay.
QUICK = ("vgg11_bn", "bn_inception", "legacy_seresnext26_32x4d", "resnetv2_18", "wrn_16_8", "densenet_40_12",
         "mobilenet_025", "resnet20_cifar")  # fmt: skip
DEEPEST = ("preresnet1001_cifar", "plain1202_cifar", "resnet1202_cifar")  # many minutes of compiling the same layers
COMPUTED = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NORMED if name not in DEEPEST
]


@pytest.mark.parametrize("name", COMPUTED)
def test_a_folded_network_gives_the_same_logits_and_taps(name):
    model, variables, images = small(name)
    folded, merged = fold_batch_norm(model, variables)
    assert type(folded) is type(model) and set(merged) == {"params"}
    assert_near(seen(folded, merged, images), seen(model, variables, images))


# Norms that stay, behind a concatenation, a pool or a sum, or with another reader beside them. All others go.
STAYING = {
    "dpn": ("*/norm1", "*/project_norm", "norm"),
    "densenet": ("*/norm1", "transition*", "norm"),
    "nasnet": ("stem_cell2/previous/norm", "stage?_cell1/previous/norm"),
    "pnasnet": ("stem_cell2/previous/norm", "stage1_cell1/previous/norm", "stage[23]_cell2/previous/norm"),
    "preresnet": ("*/norm1", "norm"),
    "resnetv2": ("*/norm1", "norm"),
    "wrn": ("*/norm1", "norm"),
}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NORMED])
def test_every_norm_right_behind_a_convolution_goes(name):
    model, info = create_model(name), model_info(name)

    def fold_and_apply(variables):
        folded, merged = fold_batch_norm(model, variables)
        return merged, folded.apply(merged, jnp.zeros((1, *info.input_size)), train=False)

    shapes = info.structure.variables
    merged, logits = jax.eval_shape(fold_and_apply, shapes)
    assert logits.shape == (1, info.num_classes)
    left = {path[:-1] for path in flatten_dict(merged["params"]) if path[-1] == "scale"}
    globs = next((globs for family, globs in STAYING.items() if name.startswith(family)), ())
    norms = {path[:-1] for path in flatten_dict(shapes["batch_stats"])}
    assert left == {norm for norm in norms if any(fnmatchcase("/".join(norm), glob) for glob in globs)}


def test_in_bfloat16_parameters_are_folded_in_float32():
    model, variables, images = small("resnet20_cifar")
    half, merged = fold_batch_norm(model.clone(dtype=jnp.bfloat16), variables)
    jax.tree.map(np.testing.assert_array_equal, merged, fold_batch_norm(model, variables)[1])
    logits = quick_apply(half, merged, images, train=False)
    assert logits.dtype == jnp.float32
    # bfloat16 keeps 8 bits: 0.4% a rounding; errors of many layers add up like a random walk.
    assert_near(logits, quick_apply(model, variables, images, train=False), 0.1)


def test_a_folded_network_serves_extract_features_and_jit_and_remat():
    model, variables, images = small("resnet20_cifar", remat=True)
    names = ["stage2", "stage2_block1/conv1", "stage3_block3/conv2/norm"]

    @quick_jit
    def both(variables, images):
        return [
            extract_features(*pair, images, names) for pair in (fold_batch_norm(model, variables), (model, variables))
        ]

    assert_near(*both(variables, images))


def test_a_network_without_batch_norm_comes_back_as_it_is():
    model = create_model("lenet5_modern")
    variables = drawn(model, np.zeros((1, 32, 32, 1), np.float32))
    same, given = fold_batch_norm(model, variables)
    assert same is model and given == variables


def test_a_folded_network_refuses_to_train_in_a_line():
    model, variables, images = small("wrn_16_8")
    folded, merged = fold_batch_norm(model, variables)
    with pytest.raises(UserError, match="batch norms are folded is for train=False; train the one it came from"):
        folded.apply(merged, images, train=True, mutable=["batch_stats"])


class Odd(nn.Module):
    """Layers and norms of 8 channels; what they have to do with one another, `way` says."""

    way: str
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x, *, train):
        norm = partial(self.norm(name="norm"), train=train)
        x, conv = Conv(8, 1, name="first")(x), Conv(8, 3, padding=1, name="conv")
        ways = {
            "behind a convolution": lambda: norm(conv(x)),
            "behind a linear layer": lambda: norm(nn.Dense(8, use_bias=False, name="linear")(x)),
            "behind something between": lambda: norm(nn.relu(conv(x))),
            "of two readers": lambda: norm(y := conv(x)) + y,
            "beside a tap": lambda: norm(tap(self, "y", conv(x))),
            "behind a layer called twice": lambda: norm(conv(conv(x))),
            "called twice": lambda: norm(nn.relu(norm(conv(x)))),
        }
        return ways[self.way]()


FOLDS = ("behind a convolution", "behind a linear layer")
STAYS = (
    "behind something between",
    "of two readers",
    "beside a tap",
    "behind a layer called twice",
    "called twice",
)


@pytest.mark.parametrize("way", FOLDS + STAYS)
def test_a_norm_is_folded_only_if_it_alone_reads_the_layer(way):
    images = np.random.default_rng(0).standard_normal((2, 6, 6, 8), np.float32)
    model = Odd(way)
    variables = drawn(model, images)
    folded, merged = fold_batch_norm(model, variables)
    assert ("scale" not in merged["params"]["norm"]) == (way in FOLDS)
    assert_near(seen(folded, merged, images), seen(model, variables, images), 1e-5)


def test_a_network_that_does_not_say_how_its_norms_are_made_is_told_so():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return ConvBN(8, 3)(x, train=train)

    variables = drawn(Own(), np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(UserError, match="Own has batch norms, but no field `norm` that says how they are made"):
        fold_batch_norm(Own(), variables)
