"""What every registered network must be; facts of a single family stand in its own test file."""

import hashlib
import json
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from expected import EXPECTED
from flax.traverse_util import flatten_dict
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import UserError, create_model, export_state_dict, list_models, model_info
from cnn_jax.models import MODELS
from cnn_jax.models.resnet import ResNet
from cnn_jax.models.structure import structure

NAMES = sorted(EXPECTED)
KERAS_KEYS = json.loads((Path(__file__).parent / "keras_files" / "keys.json").read_text())


def default(name):
    return model_info(name).structure


def fields(name):
    return type(create_model(name)).__dataclass_fields__


def with_option(option):
    return [name for name in sorted(MODELS) if option in fields(name)]


def test_every_model_has_its_row_of_expected_values():
    assert set(MODELS) == set(EXPECTED)


# Those that look at each network as it is: all of them at one, then at the next, for its structure is made once.
each_network = pytest.mark.parametrize("name", NAMES, scope="module")


@each_network
def test_card_and_network_agree_with_the_published_figures(name):
    row, info, found = EXPECTED[name], model_info(name), default(name)
    assert info.params == found.params - found.aux_params == row["params"]
    assert info.aux_params == found.aux_params
    assert info.macs == found.macs
    assert abs(found.macs / row["macs"] - 1) < 0.005, row["source"]
    assert found.output == (info.num_classes,)


@each_network
def test_taps_cover_the_network(name):
    info, taps = model_info(name), default(name).taps
    assert [(f.name, f.channels) for f in info.features] == [(tap, shape[-1]) for tap, shape in taps.items()]
    strides = [f.stride for f in info.features if f.stride]
    assert strides == sorted(strides) and len(taps) >= 3


@each_network
def test_train_is_keyword_only_and_has_no_default(name):
    with pytest.raises(TypeError):
        create_model(name).init(jax.random.key(0), jnp.zeros((1, *model_info(name).input_size)))


@each_network
def test_every_name_table_gives_each_variable_a_key_of_its_own(name):
    """Those of weights/names, one for each library that has the network. Keras's keys and shapes are known."""
    shapes = default(name).variables
    variables = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    leaves = len(jax.tree.leaves(variables))
    norms = len(flatten_dict(variables.get("batch_stats", {}))) // 2
    for reference in model_info(name).references:
        there = export_state_dict(name, variables, reference=reference)
        if reference.startswith("keras."):
            lines = sorted(f"{key} {array.shape}" for key, array in there.items())
            assert hashlib.sha256("\n".join(lines).encode()).hexdigest().startswith(KERAS_KEYS[reference])
        else:
            assert len(there) == leaves + norms


def smallest_of_each_class(names):
    """`names`, all but the one with the fewest parameters of each class as slow tests: the layers are the same."""
    fast: dict = {}
    for name in sorted(names, key=lambda name: model_info(name).params):
        fast.setdefault(type(create_model(name)), name)
    return [name if name in fast.values() else pytest.param(name, marks=pytest.mark.slow) for name in names]


LARGE_STEMS = [name for name in with_option("stem") if model_info(name).input_size[0] > 64]


@pytest.mark.parametrize("name", smallest_of_each_class(LARGE_STEMS))
def test_the_cifar_stem_and_the_common_options_go_together_at_28_pixels(name):
    """Grey images, squeeze-and-excitation and rematerialisation at once, where the network has them."""
    options = {"stem": "cifar", "num_classes": 10}
    if "se_reduction" in fields(name):
        options["se_reduction"] = 16
    if "remat" in fields(name):
        options["remat"] = True
    found = structure(create_model(name, **options), (28, 28, 1))
    assert found.output == (10,)
    assert found.macs <= max(default(name).macs, 1e9)
    gates = [path for path in flatten_dict(found.variables["params"]) if path[-2:] == ("expand", "kernel")]
    assert gates or "se_reduction" not in options


# One network of each kind, small enough to compute with here: 32 pixels (LeNet-1 28), 10 classes.
SMALL = {
    "lenet1": {},
    "lenet5": {},
    "lenet5_modern": {},
    "alexnet": {"stem": "cifar"},
    "alexnet_owt": {"stem": "cifar"},
    "zfnet": {"stem": "cifar"},
    "nin_cifar10": {},
    "vgg11_lrn": {"stem": "cifar", "se_reduction": 16},
    "vgg11_bn": {"stem": "cifar"},
    "googlenet": {"stem": "cifar"},
    "googlenet_bn": {"stem": "cifar", "se_reduction": 16},
    "bn_inception": {"stem": "cifar"},
    "inception_v3": {"stem": "cifar"},
    "inception_v4": {"stem": "cifar"},
    "inception_resnet_v1": {"stem": "cifar"},
    "inception_resnet_v2": {"stem": "cifar"},
    "xception": {"stem": "cifar"},
    "xception41": {"stem": "cifar"},
    "nasnetamobile": {"stem": "cifar"},
    "pnasnet5large": {"stem": "cifar"},
    "resnet18": {"stem": "cifar", "shortcut": "A"},
    "resnet50d": {"stem": "cifar"},
    "resnext50_32x4d": {"stem": "cifar"},
    "resnetv2_18": {"stem": "cifar"},
    "preresnet18": {"stem": "cifar"},
    "resnet20_cifar": {},
    "wrn_16_8": {},
    "densenet121": {"stem": "cifar"},
    "dpn68": {"stem": "cifar"},
    "squeezenet1_1": {"stem": "cifar"},
    "shufflenet_v1_g3": {"stem": "cifar"},
    "shufflenet_v2_x0_5": {"stem": "cifar"},
    "mobilenet_v3_small": {"stem": "cifar"},
    "mnasnet0_5": {"stem": "cifar"},
    "mobilenet_025": {"stem": "cifar"},
    "mobilenetv2_035": {"stem": "cifar", "se_reduction": 16},
    "seresnet18": {"stem": "cifar"},
    "legacy_seresnet18": {"stem": "cifar"},
}


@pytest.mark.parametrize("name", SMALL)
def test_zero_classes_give_the_features_before_the_head_and_bfloat16_leaves_parameters_float32(name):
    found = structure(create_model(name, num_classes=0, dtype=jnp.bfloat16), model_info(name).input_size)
    assert len(found.output) == 1 and found.output[0] > 10
    assert "head" not in found.variables["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(found.variables)} == {jnp.dtype("float32")}
    assert set(found.variables) <= {"params", "batch_stats"}


def small_size(name):
    """Height, width and channels of its small images."""
    height, width, channels = model_info(name).input_size
    return min(height, 32), min(width, 32), channels


def last_map(taps):
    """The name of what forward_head takes, of a Structure's taps."""
    return [name for name, shape in taps.items() if len(shape) == 3][-1]


@pytest.mark.parametrize("name", SMALL)
def test_the_head_takes_the_last_map_and_may_leave_it_one(name):
    model, image = create_model(name, **SMALL[name] | {"num_classes": 10}), small_size(name)
    found = structure(model, image)
    last = jax.ShapeDtypeStruct((2, *found.taps[last_map(found.taps)]), np.float32)
    head = partial(model.apply, train=False, method="forward_head")
    assert jax.eval_shape(head, found.variables, last).shape == (2, 10)
    if "global_pool" in fields(name):
        assert structure(model.clone(global_pool=""), image).output == (*last.shape[1:3], 10)
        bare = partial(model.clone(global_pool="", num_classes=0).apply, train=False, method="forward_head")
        *size, channels = jax.eval_shape(bare, found.variables, last).shape
        assert size == [*last.shape[:3]] and channels > 10


@pytest.mark.parametrize("name", [name for name in SMALL if not name.startswith("lenet")])
def test_strides_of_taps_are_exact(name):
    """128 more pixels make 128 / stride more positions, or none where a map has a fixed size."""
    info = model_info(name)
    height, width, channels = info.input_size
    larger = structure(create_model(name), (height + 128, width + 128, channels)).taps
    for feature in info.features:
        if feature.stride:
            assert larger[feature.name][0] - default(name).taps[feature.name][0] in (128 // feature.stride, 0), feature


@pytest.mark.parametrize("name", [name for name, options in SMALL.items() if "stem" in options])
@pytest.mark.parametrize("size", [32, 64])
def test_the_cifar_stem_suits_small_images(name, size):
    assert structure(create_model(name, stem="cifar", num_classes=10), (size, size, 3)).output == (10,)


@pytest.mark.parametrize("name", [name for name in SMALL if "remat" in fields(name)])
def test_rematerialisation_leaves_the_names_of_parameters(name):
    found = structure(create_model(name, remat=True), model_info(name).input_size)
    assert jax.tree.structure(found.variables) == jax.tree.structure(default(name).variables)


@cache
def small(name):
    """The small network, its variables and four images."""
    images = np.random.default_rng(0).standard_normal((4, *small_size(name))).astype(np.float32)
    model = create_model(name, **SMALL[name] | {"num_classes": 10})
    return model, quick_init(model, images[:1], train=False), images


def test_every_family_has_a_small_network():
    modules = {type(create_model(name)) for name in SMALL}
    assert modules == {type(create_model(name)) for name in MODELS}


# Minutes of compiling together; most have a golden training step as well.
DEEP = (
    "bn_inception", "densenet121", "dpn68", "googlenet_bn", "inception_resnet_v1", "inception_resnet_v2",
    "inception_v3", "inception_v4", "googlenet", "legacy_seresnet18", "resnetv2_18", "mnasnet0_5", "mobilenetv2_035",
    "mobilenet_v3_small", "resnet50d", "nasnetamobile", "pnasnet5large",
    "resnext50_32x4d", "seresnet18", "shufflenet_v1_g3", "shufflenet_v2_x0_5", "xception", "xception41",
)  # fmt: skip
COMPUTED = [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in SMALL]


@pytest.mark.parametrize("name", COMPUTED)
def test_a_training_step_gives_every_parameter_a_finite_gradient_and_moves_it(name):
    model, variables, images = small(name)

    @quick_jit
    def step(variables):
        def loss(params):
            logits, changed = model.apply(
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats", "aux_logits"],
                rngs={"dropout": jax.random.key(1)},
            )
            heads = [logits, *jax.tree.leaves(changed.get("aux_logits", {}))]
            labels = jnp.arange(4)
            return sum(optax.softmax_cross_entropy_with_integer_labels(h, labels).mean() for h in heads), changed

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (loss, changed), grads = step(variables)
    assert np.isfinite(loss)
    for path, grad in flatten_dict(grads).items():
        assert np.isfinite(grad).all(), path
        # A bias before a batch norm is idle: the norm subtracts it again.
        idle = path[-2:] == ("conv", "bias")
        assert idle or np.abs(grad).max() > 0, path
    before = flatten_dict(variables.get("batch_stats", {}))
    for path, value in flatten_dict(changed.get("batch_stats", {})).items():
        assert np.isfinite(value).all() and not np.array_equal(value, before[path]), path


@pytest.mark.parametrize("name", COMPUTED)
def test_an_image_does_not_see_its_neighbours_and_bfloat16_is_near(name):
    model, variables, images = small(name)
    apply = quick_jit(partial(model.apply, train=False))
    together = apply(variables, images)
    assert together.shape == (4, 10) and np.isfinite(together).all()
    others = apply(variables, np.concatenate([images[:2], 5 + images[2:]]))
    np.testing.assert_allclose(others[:2], together[:2], rtol=1e-5, atol=1e-6 * np.abs(together).max())
    assert not np.allclose(others[2:], together[2:])

    half = create_model(name, **SMALL[name] | {"num_classes": 10, "dtype": jnp.bfloat16})
    rough = quick_apply(half, variables, images, train=False)
    assert rough.dtype == jnp.float32
    # bfloat16 keeps 8 bits: 0.4% a rounding; errors of many layers add up like a random walk.
    assert np.abs(rough - together).max() < 0.1 * np.abs(together).max()


HEADS = ("lenet5", "nin_cifar10", "mobilenet_025", "resnet20_cifar")  # a product, a convolution, a plain one


@pytest.mark.parametrize(
    "name", [name if name in HEADS else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_the_head_goes_on_where_the_last_map_is(name):
    model, variables, images = small(name)
    logits, seen = quick_apply(model, variables, images, train=False, mutable=["intermediates"])
    last = seen["intermediates"]["taps"][last_map(structure(model, images.shape[1:]).taps)]
    head = quick_apply(model, variables, last, train=False, method="forward_head")
    np.testing.assert_allclose(head, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())


def test_list_models_takes_globs():
    assert list_models() == sorted(MODELS)
    assert list_models("*modern") == ["lenet5_modern"]
    assert list_models("no such*") == []


def test_an_alias_stands_for_one_network():
    aliases = [alias for name in MODELS for alias in model_info(name).aliases]
    assert len(set(aliases)) == len(aliases) and not set(aliases) & set(MODELS)
    assert model_info("mobilenet_v2") is model_info("mobilenetv2_100")
    assert list_models("mobilenet_v2") == ["mobilenetv2_100"]
    assert create_model("mobilenet_v2", width=0.5).width == 0.5
    with pytest.raises(UserError, match=r"unknown model 'legacy_xceptoin'; did you mean legacy_xception"):
        model_info("legacy_xceptoin")


def test_an_unknown_model_is_told_with_near_names():
    with pytest.raises(UserError, match=r"unknown model 'lenet5_modrn'; did you mean lenet5_modern"):
        create_model("lenet5_modrn")


def test_an_unknown_option_is_told_with_near_names():
    with pytest.raises(UserError, match=r"unknown option of lenet5 'num_clases'; did you mean num_classes\?"):
        create_model("lenet5", num_clases=10)
    with pytest.raises(UserError, match=r"unknown option of lenet5 'batch_norm'"):
        create_model("lenet5", batch_norm={"unbiased": True})
    with pytest.raises(UserError, match=r"unknown option of batch_norm 'unbiassed'; did you mean unbiased\?"):
        create_model("resnet18", batch_norm={"unbiassed": True})
    with pytest.raises(UserError, match="batch_norm must be a dict of options"):
        create_model("resnet18", batch_norm=3)


@pytest.mark.parametrize("name", with_option("stem"))
def test_every_network_that_has_stems_refuses_others(name):
    with pytest.raises(UserError, match=r"unknown stem 'imagenett'; did you mean imagenet\?"):
        create_model(name, stem="imagenett")


@pytest.mark.parametrize(
    ("name", "option", "value", "right"),
    [
        ("resnet18", "dropout", 1.0, "a rate of at least 0 and below 1"),
        ("resnet18", "dropout", -0.1, "a rate of at least 0 and below 1"),
        ("resnet18", "dropout", float("nan"), "a rate of at least 0 and below 1"),
        ("resnet18", "stochastic_depth", True, "a rate of at least 0 and below 1"),
        ("googlenet", "aux_dropout", 2.0, "a rate of at least 0 and below 1 or None"),
        ("resnet18", "se_reduction", 0, "a whole number such as 16, or None"),
        ("resnet18", "num_classes", -1, "a whole number, 0 for features"),
        ("resnet18", "num_classes", "10", "a whole number, 0 for features"),
        ("resnet18", "num_classes", 2.5, "a whole number, 0 for features"),
        ("resnet18", "num_classes", True, "a whole number, 0 for features"),
        ("resnet18", "zero_init", 1, "True or False"),
        ("resnet18", "shortcut", None, "one of A, B, C, D, none"),
        ("resnet18", "dtype", jnp.int32, "a floating-point type such as jnp.bfloat16"),
        ("densenet121", "compression", 0, "a share above 0 and at most 1"),
        ("mobilenetv2_100", "width", float("inf"), "a number above 0"),
    ],
)
def test_a_value_is_of_its_options_type_and_in_its_range(name, option, value, right):
    with pytest.raises(UserError, match=f"{option} must be {right}, not "):
        create_model(name, **{option: value})


def test_words_have_near_names():
    with pytest.raises(UserError, match="unknown shortcut 'Z'; there are: A, B, C, D, none"):
        create_model("resnet18", shortcut="Z")
    with pytest.raises(UserError, match=r"unknown dtype 'bf16'; did you mean bfloat16\?"):
        create_model("resnet18", dtype="bf16")


def test_numpys_numbers_are_numbers():
    model = create_model("resnet18", num_classes=np.int64(5), dropout=np.float32(0.5), zero_init=np.True_)
    assert (model.num_classes, model.dropout, model.zero_init) == (5, 0.5, True)


def test_a_class_checks_its_fields_as_create_model_does():
    with pytest.raises(UserError, match=r"unknown stem 'cifr'; did you mean cifar\?"):
        ResNet((1, 1), stem="cifr")
    with pytest.raises(UserError, match=r"stages must be tuple\[int, \.\.\.\], not \[2, 2\]"):
        ResNet([2, 2])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"frozen": "stem*"}, r"frozen must be a tuple of globs such as .*, not 'stem\*'"),
        ({"frozen": ("stem*", "stam")}, r"frozen: unknown batch norm of resnet20_cifar 'stam'; did you mean stem/\*\?"),
        ({"frozen": ("stem",)}, r"frozen: unknown batch norm of resnet20_cifar 'stem'; did you mean stem/\*"),
        ({"momentum": 1.5}, "momentum must be a rate"),
        ({"group_size": 0}, "group_size must be a whole number above 0 or None, not 0"),
    ],
)
def test_options_of_batch_norm_are_checked_when_the_network_is_made(options, line):
    with pytest.raises(UserError, match=line):
        create_model("resnet20_cifar", batch_norm=options)


def test_batch_norm_options_leave_the_networks_own_epsilon_alone():
    norm = create_model("inception_v3", batch_norm={"unbiased": True}).norm
    assert norm.keywords == {"epsilon": 1e-3, "unbiased": True}


def test_every_variant_is_built_by_one_row():
    """Two rows never bear one name, and each row's network takes the common options."""
    assert len(MODELS) == sum(len(family) for family in _tables())
    for name in MODELS:
        assert {"num_classes", "dtype"} <= set(fields(name))


def _tables():
    from cnn_jax.models import FAMILIES

    return [family.VARIANTS for family in FAMILIES]


def test_no_family_file_is_longer_than_300_lines():
    from cnn_jax.models import FAMILIES

    for family in FAMILIES:
        with open(family.__file__) as file:
            assert len(file.readlines()) <= 300, family.__name__
