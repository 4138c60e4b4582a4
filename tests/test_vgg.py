import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init

from cnn_jax import UserError, create_model
from cnn_jax.models.structure import structure
from cnn_jax.models.vgg import Stage, flattened

# Table 1: weight layers of each column; table 2: millions of parameters.
TABLES = {
    "vgg11": (11, 133),
    "vgg11_lrn": (11, 133),
    "vgg13": (13, 133),
    "vgg16_c": (16, 134),
    "vgg16": (16, 138),
    "vgg19": (19, 144),
}


@pytest.mark.parametrize("name", TABLES)
def test_weight_layers_and_parameters_are_those_of_tables_1_and_2(name):
    found = structure(create_model(name), (224, 224, 3))
    assert (len(found.layers), round(found.params / 1e6)) == TABLES[name]


def test_widths_double_after_each_pool_up_to_512():
    taps = structure(create_model("vgg16"), (224, 224, 3)).taps
    assert [taps[f"stage{i}"] for i in range(1, 6)] == [
        (224, 224, 64),
        (112, 112, 128),
        (56, 56, 256),
        (28, 28, 512),
        (14, 14, 512),
    ]
    assert taps["pool5"] == (7, 7, 512)


def test_configuration_c_ends_its_last_three_stages_in_1x1():
    params = structure(create_model("vgg16_c"), (224, 224, 3)).variables["params"]
    kernels = {f"{i}/{j}": params[f"stage{i}"][f"conv{j}"]["kernel"].shape[0] for i in (3, 4, 5) for j in (1, 2, 3)}
    assert [place for place, size in kernels.items() if size == 1] == ["3/3", "4/3", "5/3"]


def test_a_lrn_normalises_the_first_stage_and_costs_nothing():
    plain, normalised = (structure(create_model(name), (224, 224, 3)) for name in ("vgg11", "vgg11_lrn"))
    assert plain.params == normalised.params
    model = create_model("vgg11_lrn", stem="cifar", num_classes=10)
    rng = np.random.default_rng(0)
    images = 9 * rng.standard_normal((1, 32, 32, 3), np.float32)
    shapes = structure(model, (32, 32, 3)).variables
    variables = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
    _, state = quick_apply(model, variables, images, train=False, capture_intermediates=True, mutable=["intermediates"])
    a = np.asarray(state["intermediates"]["taps"]["stage1"], np.float64)
    total = sum(np.square(np.pad(a, [(0, 0)] * 3 + [(2, 2)]))[..., i : i + 64] for i in range(5))
    np.testing.assert_allclose(
        state["intermediates"]["lrn1"]["__call__"][0],
        a / (2 + 1e-4 * total) ** 0.75,  # Krizhevsky 2012, sec. 3.3
        rtol=1e-4,
    )


def test_batch_norm_stands_behind_convolutions_that_keep_their_bias():
    variables = structure(create_model("vgg16_bn"), (224, 224, 3)).variables
    for stage in (f"stage{i}" for i in range(1, 6)):
        convs = [name for name in variables["params"][stage] if name.startswith("conv")]
        assert all("bias" in variables["params"][stage][name] for name in convs)
        assert {name.replace("conv", "norm") for name in convs} == set(variables["batch_stats"][stage])


def test_weights_start_by_glorots_rule():
    stage = Stage(128, (3,))
    drawn = quick_init(stage, jnp.zeros((1, 8, 8, 64)), train=False)["params"]["conv1"]
    # Uniform within sqrt(6 / (fan_in + fan_out)), Glorot & Bengio 2010, eq. 16.
    np.testing.assert_allclose(np.abs(drawn["kernel"]).max(), np.sqrt(6 / (9 * 64 + 9 * 128)), rtol=0.01)
    np.testing.assert_array_equal(drawn["bias"], 0)


def test_a_fully_connected_kernel_counts_its_window_as_inputs_only():
    kernel = flattened(jax.nn.initializers.glorot_uniform())(jax.random.key(0), (7, 7, 8, 64))
    assert kernel.shape == (7, 7, 8, 64)
    np.testing.assert_allclose(np.abs(kernel).max(), np.sqrt(6 / (7 * 7 * 8 + 64)), rtol=0.01)


@pytest.mark.parametrize("name", ["vgg11", "vgg19_bn"])
@pytest.mark.parametrize("size", [(28, 28, 1), (32, 32, 3), (64, 64, 3)])
def test_the_cifar_stem_pools_to_one_position_and_has_narrow_layers(name, size):
    found = structure(create_model(name, stem="cifar", num_classes=10), size)
    assert found.taps["pool5"][0] == -(-size[0] // 32)
    assert found.taps["fc6"] == found.taps["fc7"] == (512,) and found.output == (10,)


def test_squeeze_and_excitation_gates_every_convolution():
    plain, gated = (structure(create_model("vgg11", se_reduction=r), (224, 224, 3)) for r in (None, 16))
    widths = [64, 128, 256, 256, 512, 512, 512, 512]
    assert gated.params - plain.params == sum(2 * w * (w // 16) + w // 16 + w for w in widths)


def test_options_of_batch_norm_need_a_network_that_has_it():
    with pytest.raises(UserError, match="unknown option of vgg11 'batch_norm'"):
        create_model("vgg11", batch_norm={"unbiased": True})
    assert create_model("vgg11_bn", batch_norm={"unbiased": True}).norm.keywords == {"unbiased": True}
