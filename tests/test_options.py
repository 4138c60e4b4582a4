"""Stochastic depth, blocks that start at zero and rematerialisation, over all families that have them."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import UserError, create_model, list_models, model_info
from cnn_jax.layers import BatchNorm, ConvBN, SqueezeExcite, Unit
from cnn_jax.models.inception_resnet import ResidualInception
from cnn_jax.models.mobilenet_v2 import InvertedResidual
from cnn_jax.models.preresnet import BasicUnit, BottleneckUnit
from cnn_jax.models.resnet import BasicBlock, Bottleneck
from cnn_jax.models.structure import structure
from cnn_jax.models.xception import Block, SeparableConv


def has(name, option):
    return option in type(create_model(name)).__dataclass_fields__


def of_modules(record, name, **options):
    """Evaluates a network abstractly and gives `record(module)` of every module in it, by path."""
    found = {}

    def seen(call, args, kwargs, context):
        if context.method_name == "__call__" and context.module.path:
            found["/".join(context.module.path)] = record(context.module)
        return call(*args, **kwargs)

    with nn.intercept_methods(seen):
        model, image = create_model(name, **options), jnp.zeros((1, *model_info(name).input_size))
        jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)
    return found


# Residual blocks by hand from the papers' tables; of version 2's 17 blocks 10 have a shortcut.
RESIDUAL = {
    "resnet18": (8, range(1, 9)),
    "resnet50d": (16, range(1, 17)),
    "resnext50_32x4d": (16, range(1, 17)),
    "resnet20_cifar": (9, range(1, 10)),
    "seresnet18": (8, range(1, 9)),
    "legacy_seresnet18": (8, range(1, 9)),
    "preresnet18": (8, range(1, 9)),
    "resnetv2_18": (8, range(1, 9)),
    "wrn_16_8": (6, range(1, 7)),
    "xception": (12, range(1, 13)),
    "inception_resnet_v1": (21, range(1, 22)),
    "inception_resnet_v2": (40, range(1, 41)),
    "mobilenetv2_100": (17, (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)),
    "mobilenet_v3_large": (15, (1, 3, 5, 6, 8, 9, 10, 12, 14, 15)),
    "mnasnet1_0": (17, (3, 4, 6, 7, 9, 10, 12, 14, 15, 16)),
    "xception41": (12, range(1, 13)),
}


def test_every_family_of_residual_networks_has_stochastic_depth():
    modules = {type(create_model(name)) for name in RESIDUAL}
    assert modules == {type(create_model(name)) for name in list_models() if has(name, "stochastic_depth")}


@pytest.mark.parametrize("name", RESIDUAL)
def test_the_rate_of_stochastic_depth_rises_from_block_to_block(name):
    of, numbers = RESIDUAL[name]
    rates = of_modules(lambda module: getattr(module, "rate", None), name, stochastic_depth=0.5)
    found = [rate for path, rate in rates.items() if path.endswith("/stochastic_depth")]
    assert found == pytest.approx([0.5 * number / of for number in numbers])


@pytest.mark.parametrize(
    "name",
    ["resnet18", "seresnet18", "resnet20_cifar", "preresnet18", "wrn_16_8", "xception", "inception_resnet_v1",
     "mobilenetv2_100"],
)  # fmt: skip
def test_stochastic_depth_and_zero_init_leave_evaluation_and_the_names_of_parameters(name):
    zero_init = {"zero_init": True} if has(name, "zero_init") else {}
    size = model_info(name).input_size
    programs = []
    for options in ({}, {"stochastic_depth": 0.5} | zero_init):
        model = create_model(name, **options)
        run = jax.make_jaxpr(partial(model.apply, train=False))
        programs.append(str(run(structure(model, size).variables, jnp.zeros((1, *size)))))
    assert programs[0] == programs[1]


# Blocks that keep the shape, the layer at the end of their branch, and what follows the addition.
SEPARABLE = partial(SeparableConv, norm=BatchNorm, dtype=jnp.float32)
BLOCKS = {
    "basic": (partial(BasicBlock, 8), "conv2", nn.relu),
    "bottleneck": (partial(Bottleneck, 2), "conv3", nn.relu),
    "gated": (partial(BasicBlock, 8, se=partial(SqueezeExcite, 2)), "se", nn.relu),
    "inverted": (partial(InvertedResidual, 8, 2), "project", lambda x: x),
    "separable": (partial(Block, (8, 8), 1, True, SEPARABLE, ConvBN, None), "conv2", lambda x: x),
    "basic unit": (partial(BasicUnit, 8), "conv2", lambda x: x),
    "bottleneck unit": (partial(BottleneckUnit, 2), "conv3", lambda x: x),
    "inception": (partial(ResidualInception, ((Unit("one", 4),),), 1.0), "project", nn.relu),
}
ZEROED = ["basic", "bottleneck", "gated", "inverted", "separable"]


@pytest.mark.parametrize("kind", BLOCKS)
def test_an_image_skips_the_branch_or_gets_it_divided_by_its_survival(kind):
    build, last, act = BLOCKS[kind]
    block, x = build(stochastic_depth=0.4), np.random.default_rng(0).standard_normal((16, 4, 4, 8), np.float32)
    variables = quick_init(block, x, train=False)
    drawn = {"dropout": jax.random.key(0)}
    y, state = quick_apply(block, variables, x, train=True, rngs=drawn, mutable=True, capture_intermediates=True)
    branch = state["intermediates"][last]["__call__"][0]
    skipped, taken = act(x), act(x + branch / 0.6)
    skips, takes = (np.isclose(y, expected, rtol=1e-4, atol=1e-5).all((1, 2, 3)) for expected in (skipped, taken))
    assert np.array_equal(skips, ~takes) and 0 < skips.sum() < 16


@pytest.mark.parametrize("kind", ZEROED)
def test_a_block_that_starts_at_zero_passes_its_input_on_and_learns(kind):
    build, last, act = BLOCKS[kind]
    block, x = build(zero_init=True), np.random.default_rng(0).standard_normal((16, 4, 4, 8), np.float32)
    variables = quick_init(block, x, train=False)
    weights = np.random.default_rng(1).standard_normal(x.shape, np.float32)

    def loss(params):
        y, _ = block.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])
        return (weights * y).sum(), y

    grads, y = quick_jit(jax.grad(loss, has_aux=True))(variables["params"])
    np.testing.assert_array_equal(y, act(x))
    norm = grads["conv2" if last == "se" else last]["norm"]
    assert np.abs(norm["scale"]).min() > 1e-3 and np.abs(norm["bias"]).min() > 1e-3


# Blocks with a zero scale: all with a shortcut, but for new channels that are zeros.
@pytest.mark.parametrize(
    ("name", "options", "last", "count"),
    [
        ("resnet18", {}, "conv2", 8),
        ("resnet18", {"shortcut": "A"}, "conv2", 4),
        ("resnet50", {"se_reduction": 16}, "conv3", 16),
        ("legacy_seresnext26_32x4d", {}, "conv3", 8),
        ("resnet20_cifar", {"shortcut": "B"}, "conv2", 9),
        ("resnet20_cifar", {}, "conv2", 6),
        ("mobilenetv2_100", {}, "project", 10),
    ],
)
def test_zero_init_starts_the_last_norm_of_each_branch_at_zero_and_no_other(name, options, last, count):
    def starts_at_zero(module):
        return isinstance(module, BatchNorm) and module.scale_init is nn.initializers.zeros_init()

    found = of_modules(starts_at_zero, name, zero_init=True, **options)
    zeros = [path for path, zero in found.items() if zero]
    assert len(zeros) == count and all(path.endswith(f"{last}/norm") for path in zeros)
    assert not any(of_modules(starts_at_zero, name, **options).values())


def test_new_channels_of_zeros_learn_all_the_same():
    model = create_model("resnet20_cifar", zero_init=True).clone(blocks=2)
    images = np.random.default_rng(0).standard_normal((4, 16, 16, 3), np.float32)
    variables = quick_init(model, images, train=False)

    @quick_jit
    def gradient(params):
        def loss(params):
            logits, _ = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4)).mean()

        return jax.grad(loss)(params)

    grads = gradient(variables["params"])
    for name in ("stage2_block2", "stage3_block2"):
        assert np.count_nonzero(grads[name]["conv2"]["norm"]["scale"]) == grads[name]["conv2"]["norm"]["scale"].size


@pytest.mark.parametrize("option", [{"stochastic_depth": 0.5}, {"zero_init": True}])
def test_a_plain_network_has_nothing_to_drop_or_to_start_at_zero(option):
    (key,) = option
    for name, more in (("plain18", {}), ("plain20_cifar", {}), ("resnet18", {"shortcut": "none"})):
        with pytest.raises(UserError, match=f"{key} needs shortcuts around the blocks, and this {name} has none"):
            create_model(name, **option, **more)


def test_a_branch_that_ends_in_a_relu_cannot_start_at_zero():
    with pytest.raises(UserError, match="zero_init would leave the activation at the end of each branch at 0"):
        structure(create_model("legacy_seresnet18", zero_init=True), (224, 224, 3))
    with pytest.raises(UserError, match=r"unknown option of preresnet18 'zero_init'"):
        create_model("preresnet18", zero_init=True)


LONG_TO_TRACE = (
    "bn_inception", "densenet121", "googlenet", "googlenet_bn", "inception_resnet_v1", "inception_v3", "inception_v4",
    "nasnetamobile", "pnasnet5large",
)  # fmt: skip
# A block of every network with rematerialisation, one of each kind.
REMATTED = {
    "nin_cifar10": "mlpconv1",
    "vgg11_bn": "stage1",
    "googlenet": "inception_3a",
    "googlenet_bn": "inception_3a",
    "bn_inception": "inception_3a",
    "inception_v3": "mixed_5b",
    "inception_v4": "mixed_3a",
    "inception_resnet_v1": "block35_1",
    "xception": "block1",
    "resnet18": "stage1_block1",
    "resnet20_cifar": "stage1_block1",
    "preresnet18": "stage1_block1",
    "wrn_16_8": "stage1_block1",
    "densenet121": "stage1_layer1",
    "mobilenet_025": "stage1_block1",
    "mobilenetv2_035": "stage1_block1",
    "squeezenet1_1": "fire2",
    "shufflenet_v1_g3": "stage2_block1",
    "shufflenet_v2_x0_5": "stage2_block1",
    "mobilenet_v3_small": "stage1_block1",
    "mnasnet0_5": "stage1_block1",
    "dpn68": "stage1_block1",
    "nasnetamobile": "stage1_cell1",
    "pnasnet5large": "stage1_cell1",
    "xception41": "block1",
}


def test_every_family_with_rematerialisation_stands_here():
    modules = {type(create_model(name)) for name in REMATTED}
    assert modules == {type(create_model(name)) for name in list_models() if has(name, "remat")}


def rematted(model, image):
    """How many blocks of a network are computed again."""
    jaxpr = jax.make_jaxpr(lambda: model.init(jax.random.key(0), jnp.zeros((1, *image)), train=False))()
    return sum(eqn.primitive.name == "remat2" for eqn in jaxpr.eqns)


# The others take seconds to trace.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG_TO_TRACE else name for name in REMATTED]
)
def test_a_glob_names_the_blocks_that_are_computed_again(name):
    assert rematted(create_model(name, remat=(REMATTED[name],)), model_info(name).input_size) == 1


@pytest.mark.parametrize(
    ("name", "remat", "count"),
    [
        ("resnet50", True, 16),
        ("resnet50", ("*",), 16),
        ("resnet50", ("stage1*", "stage[24]*"), 3 + 4 + 3),
        ("resnet50", (), 0),
        ("inception_v4", True, 3 + 16),  # the stem's modules too
        ("densenet121", ("transition*",), 3),
    ],
)
def test_remat_takes_all_blocks_or_those_that_globs_name(name, remat, count):
    assert rematted(create_model(name, remat=remat), model_info(name).input_size) == count


SMALL = np.random.default_rng(0).standard_normal((4, 16, 16, 3), np.float32)


def a_loss(remat):
    """Of parameters, in training with stochastic depth; and parameters."""
    model = create_model("resnet20_cifar", stochastic_depth=0.5, remat=remat).clone(blocks=2)
    variables = quick_jit(lambda key: model.init(key, SMALL, train=False))(jax.random.key(0))
    rngs = {"dropout": jax.random.key(1)}

    def loss(params):
        state = variables | {"params": params}
        logits, _ = model.apply(state, SMALL, train=True, mutable=["batch_stats"], rngs=rngs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4)).mean()

    return loss, variables["params"]


def test_what_waits_for_the_backward_pass_falls_with_each_stage_that_is_computed_again():
    def backward(loss, params):
        return jax.vjp(loss, params)[1]  # a pytree of what it has kept

    kept = []
    for remat in (False, ("stage1*",), ("stage1*", "stage2*"), True):
        loss, params = a_loss(remat)
        waiting = jax.eval_shape(partial(backward, loss), params)
        kept.append(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(waiting)))
    assert kept == sorted(kept, reverse=True) and kept[-1] < 0.5 * kept[0]


def test_computing_a_stage_again_changes_no_number_and_drops_the_same_images():
    results = []
    for remat in (False, ("stage1*",)):
        loss, params = a_loss(remat)
        results.append(quick_jit(jax.value_and_grad(loss))(params))
    # The backward pass sums in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *results)


def test_a_glob_that_names_no_block_is_told_with_near_names():
    with pytest.raises(UserError, match=r"remat: unknown block of resnet18 'stage5_block1'; did you mean stage"):
        create_model("resnet18", remat=("stage1*", "stage5_block1"))
    with pytest.raises(UserError, match=r"remat: unknown block of nin_cifar10 'stem'; there are: mlpconv1, mlpconv2"):
        create_model("nin_cifar10", remat=("stem",))
    for wrong in ("stage1*", 1, ["stage1*"], (1,)):
        with pytest.raises(UserError, match=r"remat must be True, False or a tuple of globs"):
            create_model("resnet18", remat=wrong)
