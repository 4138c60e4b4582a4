import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init

from cnn_jax import create_model, model_info
from cnn_jax.layers import same_padding
from cnn_jax.models.nasnet import Squeeze
from cnn_jax.models.structure import structure


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [("nasnetamobile", 5.3, 0.564), ("nasnetalarge", 88.9, 23.8), ("pnasnet5large", 86.1, 25.0)],
)
def test_the_networks_cost_what_their_papers_say(name, params, macs):
    """Table 2 and 3 of NASNet's, table 5 of PNASNet's."""
    found = model_info(name).structure
    assert abs(found.params / 1e6 / params - 1) < 0.003
    assert abs(found.macs / 1e9 / macs - 1) < 0.003


def test_large_has_six_cells_a_stage_and_4032_channels_at_its_end():
    """NASNet-A (6 @ 4032): 24 times the 168 features of stage 1."""
    found = model_info("nasnetalarge").structure
    assert [found.taps[name] for name in ("stem_cell1", "stem_cell2", "stage1", "stage2", "stage3")] == [
        (83, 83, 168), (42, 42, 336), (42, 42, 1008), (21, 21, 2016), (11, 11, 4032),
    ]  # fmt: skip
    cells = {layer.path.split("/")[0] for layer in found.layers if "_cell" in layer.path}
    assert sum(cell.startswith("stage") for cell in cells) == 18


def test_a_larger_map_of_an_earlier_cell_is_halved_without_losing_pixels():
    x = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    layer = Squeeze(2, stride=2)
    variables = quick_init(layer, x, train=False)
    variables["params"] |= {name: {"kernel": jnp.ones((1, 1, 1, 1))} for name in ("even", "odd")}
    y = quick_apply(layer, variables, x, train=False) * np.sqrt(1 + 1e-5)  # fresh statistics
    np.testing.assert_allclose(y[0, :, :, 0], [[0, 2, 4], [10, 12, 14], [20, 22, 24]], rtol=1e-5)
    np.testing.assert_allclose(y[0, :, :, 1], [[6, 8, 0], [16, 18, 0], [0, 0, 0]], rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "window", "stride", "pads"),
    [(4, 3, 1, (1, 1)), (4, 3, 2, (0, 1)), (5, 3, 2, (1, 1)), (4, 7, 2, (2, 3)), (4, 1, 2, (0, 0)), (1, 3, 2, (1, 1))],
)
def test_same_padding_is_tensorflows(size, window, stride, pads):
    """By hand from tf.nn's documentation, "Notes on padding"."""
    assert same_padding(jnp.zeros((1, size, size, 1)), window, stride) == (pads, pads)


@pytest.mark.parametrize("name", ["nasnetamobile", "pnasnet5large"])
@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_has_no_cells_of_its_own(name, size):
    taps = structure(create_model(name, stem="cifar"), (size, size, 1)).taps
    assert [shape[0] for shape in taps.values()] == [size, size, size // 2, size // 4]
