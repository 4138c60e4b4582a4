import numpy as np
import pytest

from cnn_jax import create_model
from cnn_jax.models.inception_v4 import AVG
from cnn_jax.models.structure import structure


def test_outputs_have_the_sizes_of_figures_3_and_9():
    taps = structure(create_model("inception_v4"), (299, 299, 3)).taps
    assert taps["conv_2b"] == (147, 147, 64)
    assert taps["mixed_3a"] == (73, 73, 160)
    assert taps["mixed_4a"] == (71, 71, 192)
    assert taps["mixed_5a"] == taps["mixed_5e"] == (35, 35, 384)
    assert taps["mixed_6a"] == taps["mixed_6h"] == (17, 17, 1024)
    assert taps["mixed_7a"] == taps["mixed_7d"] == (8, 8, 1536)


def test_there_are_4_modules_a_7_b_and_3_c():
    taps = structure(create_model("inception_v4"), (299, 299, 3)).taps
    counts = [sum(name.startswith(f"mixed_{stage}") for name in taps) for stage in (5, 6, 7)]
    assert counts == [1 + 4, 1 + 7, 1 + 3]  # each with the module that makes its size


def test_reduction_a_has_the_k_l_m_n_of_table_1():
    module = structure(create_model("inception_v4"), (299, 299, 3)).variables["params"]["mixed_6a"]
    names = ("double_reduce", "double1", "double2", "three")
    assert [module[name]["conv"]["kernel"].shape[-1] for name in names] == [192, 224, 256, 384]


def test_average_pools_leave_their_padding_out():
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 1)).astype(np.float32)
    y = AVG(x)
    np.testing.assert_allclose(y[0, 0, 0], x[0, :2, :2].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(AVG(np.ones_like(x)), np.ones_like(x), rtol=1e-6)


def test_squeeze_excitation_stands_in_every_module_after_the_stem():
    params = structure(create_model("inception_v4", se_reduction=16), (299, 299, 3)).variables["params"]
    gated = {name for name, module in params.items() if "se" in module}
    assert gated == {name for name in params if name.startswith("mixed") and name[6:] not in ("3a", "4a", "5a")}


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_keeps_the_first_layers_at_full_size(size):
    taps = structure(create_model("inception_v4", stem="cifar"), (size, size, 1)).taps
    sizes = [taps[name][0] for name in ("conv_2b", "mixed_3a", "mixed_5a", "mixed_6a", "mixed_7a")]
    assert sizes == [size, size // 2, size // 4, -(-size // 8), -(-size // 16)]
