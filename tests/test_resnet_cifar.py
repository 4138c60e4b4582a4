from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_init, quick_jit

from cnn_jax import UserError, create_model, import_state_dict, model_info
from cnn_jax.models.structure import structure

IMAGE = (32, 32, 3)
# Table 6: millions of parameters, as printed.
TABLE_6 = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}


@pytest.mark.parametrize("depth", TABLE_6)
def test_layers_and_parameters_are_those_of_table_6(depth):
    found = structure(create_model(f"resnet{depth}_cifar"), IMAGE)
    assert sum(layer.macs > 0 for layer in found.layers) == depth  # no layer but those of the main path
    assert round(found.params / 1e6, 1 if depth == 110 else 2) == TABLE_6[depth]


def test_three_stages_halve_the_image_and_double_the_width():
    taps = structure(create_model("resnet20_cifar"), IMAGE).taps
    assert list(taps.values()) == [(32, 32, 16), (32, 32, 16), (16, 16, 32), (8, 8, 64)]


def test_a_plain_net_differs_by_its_shortcuts_alone():
    plain, residual = (structure(create_model(f"{kind}20_cifar"), IMAGE) for kind in ("plain", "resnet"))
    assert jax.tree.map(jnp.shape, plain.variables) == jax.tree.map(jnp.shape, residual.variables)
    assert plain.macs == residual.macs


def test_projections_are_an_option():
    found = structure(create_model("resnet20_cifar", shortcut="B"), IMAGE)
    assert (found.params, found.macs) == (272_474, 40_813_184)
    with pytest.raises(UserError, match="unknown shortcut 'D'"):
        create_model("resnet20_cifar", shortcut="D")


def test_new_channels_of_the_shortcut_are_zeros_on_both_sides():
    model = create_model("resnet20_cifar", num_classes=0).clone(blocks=1)
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    variables = quick_init(model, x, train=False)
    norm = variables["params"]["stage2_block1"]["conv2"]["norm"]
    norm["scale"] = jnp.zeros_like(norm["scale"])  # silences the branch
    run = quick_jit(partial(model.apply, train=False, mutable=["intermediates"]))
    taps = run(variables, x)[1]["intermediates"]["taps"]
    expected = np.zeros((2, 16, 16, 32), np.float32)
    expected[..., 8:24] = taps["stage1"][:, ::2, ::2]
    np.testing.assert_array_equal(taps["stage2"], expected)


def test_a_file_of_akamasters_loads_with_its_prefix():
    rng, state_dict = np.random.default_rng(0), {}

    def layer(conv, norm, inputs, outputs):
        state_dict[f"module.{conv}.weight"] = rng.standard_normal((outputs, inputs, 3, 3))
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state_dict[f"module.{norm}.{leaf}"] = rng.uniform(1, 2, outputs)

    layer("conv1", "bn1", 3, 16)
    width = 16
    for i, outputs in enumerate((16, 32, 64), start=1):
        for j in range(3):
            layer(f"layer{i}.{j}.conv1", f"layer{i}.{j}.bn1", width, outputs)
            layer(f"layer{i}.{j}.conv2", f"layer{i}.{j}.bn2", outputs, outputs)
            width = outputs
    state_dict |= {"module.linear.weight": rng.standard_normal((10, 64)), "module.linear.bias": rng.standard_normal(10)}
    params = import_state_dict("resnet20_cifar", state_dict)["params"]
    np.testing.assert_array_equal(params["head"]["kernel"], state_dict["module.linear.weight"].T.astype(np.float32))
    np.testing.assert_array_equal(
        params["stage2_block1"]["conv1"]["conv"]["kernel"][2, 1, 5],
        state_dict["module.layer2.0.conv1.weight"][:, 5, 2, 1].astype(np.float32),
    )


@pytest.mark.parametrize(("name", "millions"), [("8x64d", 34.4), ("16x64d", 68.1)])
def test_resnext_29_has_the_parameters_of_table_7(name, millions):
    assert abs(model_info(f"resnext29_{name}_cifar").structure.params / 1e6 - millions) < 0.1


def test_gates_of_cifar_nets_add_nothing_but_themselves():
    plain = structure(create_model("resnet20_cifar", shortcut="B"), (32, 32, 3)).params
    gates = sum(3 * (2 * width * (width // 16) + width // 16 + width) for width in (16, 32, 64))  # by hand from eq. 3
    assert model_info("seresnet20_cifar").structure.params == plain + gates
