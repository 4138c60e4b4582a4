import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init

from cnn_jax import UserError, create_model, model_info
from cnn_jax.models import lenet
from cnn_jax.models.structure import structure

# Table I as printed: rows are S2 maps, columns C3 maps 0-15, X a connection.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


@pytest.fixture(scope="module")
def net():
    model = create_model("lenet5")
    x = np.random.default_rng(0).uniform(-0.1, 1.175, (3, 32, 32, 1)).astype(np.float32)
    return model, quick_init(model, x, train=False), x


def squash(x):
    return 1.7159 * np.tanh(2 * x / 3)


def valid_conv(x, kernel):
    """Float64 by loops: (H, W, C) and (5, 5, C) -> (H-4, W-4)."""
    out = np.zeros((x.shape[0] - 4, x.shape[1] - 4))
    for i, j in itertools.product(*map(range, out.shape)):
        out[i, j] = (x[i : i + 5, j : j + 5] * kernel).sum()
    return out


def test_connection_table_is_table_1_of_the_paper():
    rows = TABLE_I.split()
    printed = tuple(tuple(i for i in range(6) if rows[i][j] == "X") for j in range(16))
    assert printed == lenet.C3_TABLE
    assert sum(map(len, printed)) == 60


def test_layers_have_the_papers_parameters_and_connections(net):
    model, variables, x = net
    params = {name: sum(p.size for p in layer.values()) for name, layer in variables["params"].items()}
    assert params == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    _, taps = quick_apply(model, variables, x, train=False, mutable=["intermediates"])
    sizes = {name: tap.shape[1:] for name, tap in taps["intermediates"]["taps"].items()}
    assert sizes == {
        "c1": (28, 28, 6),
        "s2": (14, 14, 6),
        "c3": (10, 10, 16),
        "s4": (5, 5, 16),
        "c5": (1, 1, 120),
        "f6": (84,),
    }
    positions = {name: np.prod(shape[:-1], dtype=int) for name, shape in sizes.items()}
    connections = {name: params[name] * positions[name] for name in ("c1", "c3", "c5", "f6")}
    # Subsampling: four inputs and a bias for each output (sec. II.B).
    connections |= {name: 5 * np.prod(sizes[name]) for name in ("s2", "s4")}
    assert sum(connections.values()) + 840 == 340_908


# Table 1 of 1989: rows are H2 maps, columns H3 maps 1-12, X a connection.
TABLE_1_OF_1989 = """
XXX.XX......
.XXXXX......
......XXX.XX
.......XXXXX
"""


def test_lenet1_has_the_units_connections_and_parameters_that_its_paper_counts():
    """P. 402: 4635 units, 98442 connections and 2578 independent parameters."""
    rows = TABLE_1_OF_1989.split()
    assert tuple(tuple(i for i in range(4) if rows[i][j] == "X") for j in range(12)) == lenet.H3_TABLE
    found = structure(create_model("lenet1"), (28, 28, 1))
    params = {name: sum(p.size for p in layer.values()) for name, layer in found.variables["params"].items()}
    assert params == {"h1": 104, "h2": 8, "h3": 512, "h4": 24, "head": 1_930} and found.params == 2_578
    assert found.taps == {"h1": (24, 24, 4), "h2": (12, 12, 4), "h3": (8, 8, 12), "h4": (4, 4, 12)}
    units = {name: np.prod(shape) for name, shape in found.taps.items()} | {"head": 10}
    assert 28 * 28 + sum(units.values()) + 1 == 4_635  # with the pixels and the one that the biases come from
    connections = {name: params[name] * units[name] // shape[-1] for name, shape in found.taps.items()}
    connections |= {"h2": 5 * units["h2"], "h4": 5 * units["h4"], "head": params["head"]}
    assert sum(connections.values()) == 98_442


def test_the_halves_of_lenet1_never_meet():
    model = create_model("lenet1", num_classes=0)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 28, 28, 1)).astype(np.float32)
    variables = quick_init(model, x, train=False)
    cut = jax.tree.map(jnp.copy, variables)
    cut["params"]["h1"] = jax.tree.map(lambda leaf: leaf.at[..., 2:].set(0), variables["params"]["h1"])
    whole, half = (quick_apply(model, each, x, train=False).reshape(2, 4, 4, 12) for each in (variables, cut))
    np.testing.assert_array_equal(whole[..., :6], half[..., :6])
    assert not np.isclose(whole[..., 6:], half[..., 6:]).all()


def test_subsampling_adds_multiplies_and_shifts(net):
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype(np.float32)
    coefficient, bias = np.array([1, 2, -3], np.float32), np.array([0.5, 0, 1], np.float32)
    params = {"params": {"coefficient": coefficient, "bias": bias}}
    expected = np.zeros((2, 2, 3, 3))
    for i, j in itertools.product(range(2), range(3)):
        expected[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum((1, 2)) * coefficient + bias
    np.testing.assert_allclose(quick_apply(lenet.Subsampling(), params, x), expected, rtol=1e-5, atol=1e-5)


def test_sparse_c3_sees_only_its_maps():
    x = np.random.default_rng(0).standard_normal((1, 14, 14, 6)).astype(np.float32)
    layer = lenet.TableConv(lenet.C3_TABLE)
    variables = quick_init(layer, x)
    kernel, bias = (np.asarray(variables["params"][k], np.float64) for k in ("kernel", "bias"))
    y, first = np.asarray(quick_apply(layer, variables, x)), 0
    for i, maps in enumerate(lenet.C3_TABLE):
        expected = valid_conv(x[0][..., list(maps)], kernel[:, :, first : first + len(maps)]) + bias[i]
        np.testing.assert_allclose(y[0, :, :, i], expected, rtol=1e-4, atol=1e-5)
        first += len(maps)


def test_rbf_output_is_minus_the_squared_distance_to_the_bitmaps(net):
    model, variables, x = net
    logits, taps = quick_apply(model, variables, x, train=False, mutable=["intermediates"])
    f6 = np.asarray(taps["intermediates"]["taps"]["f6"], np.float64)
    for digit, code in enumerate(lenet.rbf_codes()):
        np.testing.assert_allclose(logits[:, digit], -((f6 - code) ** 2).sum(1), rtol=1e-5)


def test_bitmaps_are_those_of_the_figure():
    golden = json.loads((Path(__file__).parent / "golden" / "lenet5_rbf_bitmaps.json").read_text())["bitmaps"]
    for digit, code in enumerate(lenet.rbf_codes()):
        rows = ["".join("#" if pixel > 0 else "." for pixel in row) for row in code.reshape(12, 7)]
        assert rows == golden[str(digit)]


def test_bitmaps_have_the_figures_counts_and_distances():
    codes = lenet.rbf_codes()
    assert codes.shape == (10, 84) and set(np.unique(codes)) == {-1, 1}
    assert (codes > 0).sum(1).tolist() == [35, 27, 33, 32, 41, 35, 39, 25, 43, 39]
    distances = ((codes[:, None] - codes) ** 2).sum(-1)
    assert distances[6, 8] == 48 and distances[0, 4] == distances[8, 9] == 72  # the nearest pairs
    assert codes[7].reshape(12, 7)[0].tolist() == [1] * 7  # row by row: the bar of the 7


def test_a_drawn_bitmap_is_classified_as_its_digit():
    codes = lenet.rbf_codes()
    distances = ((codes[:, None] - codes) ** 2).sum(-1)
    assert (distances.argmin(1) == np.arange(10)).all()


def test_squashing_maps_plus_and_minus_one_to_themselves():
    np.testing.assert_allclose(lenet.squash(jnp.array([-1.0, 0, 1])), [-1, 0, 1], atol=1e-4)  # eq. 6
    np.testing.assert_allclose(lenet.squash(1e3), 1.7159, rtol=1e-6)


def test_weights_start_uniform_within_2_4_over_the_fan_in(net):
    params = net[1]["params"]
    limits = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    for name, fan_in in limits.items():
        for leaf in params[name].values():
            assert np.abs(leaf).max() <= 2.4 / fan_in
    assert np.abs(params["c5"]["kernel"]).max() > 0.99 * 2.4 / 400
    fan_in = np.repeat([25 * len(row) for row in lenet.C3_TABLE], [len(row) for row in lenet.C3_TABLE])
    largest = np.abs(params["c3"]["kernel"]).max((0, 1)) * fan_in / 2.4
    assert largest.max() <= 1 + 1e-6 and largest.min() > 0.7  # 25 draws for each connection


def test_card_gives_the_papers_input_range():
    info = model_info("lenet5")
    paper, ink = ((pixel - info.mean[0]) / info.std[0] for pixel in (0.0, 1.0))
    np.testing.assert_allclose([paper, ink], [-0.1, 1.175])


@pytest.mark.parametrize("j", [0.5, 1.0, 5.0])
def test_map_loss_is_equation_9(j):
    y = np.random.default_rng(0).uniform(0, 6, (5, 10))
    labels = np.array([3, 1, 4, 1, 5])
    expected = y[np.arange(5), labels] + np.log(np.exp(-j) + np.exp(-y).sum(1))
    loss = lenet.map_loss(-y.astype(np.float32), np.eye(10, dtype=np.float32)[labels], j)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert (np.asarray(loss) > 0).all()  # "positive by construction"


def test_map_loss_is_finite_for_the_largest_distances():
    worst = jnp.full((1, 10), -84 * (1.7159 + 1) ** 2)
    loss, grad = jax.value_and_grad(lambda y: lenet.map_loss(y, jnp.eye(10)[:1]).sum())(worst)
    assert np.isfinite(loss) and np.isfinite(grad).all()


def test_other_image_sizes_are_refused_with_a_sentence():
    with pytest.raises(UserError, match=r"\(B, 32, 32, C\), got \(1, 28, 28, 1\); pad 28x28 digits by 2"):
        create_model("lenet5").init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)
    with pytest.raises(UserError, match=r"LeNet-1 takes images \(B, 28, 28, C\), got \(1, 32, 32, 1\)"):
        create_model("lenet1").init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)


def test_1998_has_no_bitmaps_for_other_classes():
    with pytest.raises(UserError, match="num_classes must be 10 or 0, not 100: .*, lenet5_modern takes any number"):
        create_model("lenet5", num_classes=100)


def test_modern_takes_any_number_of_classes():
    model = create_model("lenet5_modern", num_classes=7)
    logits, _ = model.init_with_output(jax.random.key(0), jnp.zeros((2, 32, 32, 1)), train=False)
    assert logits.shape == (2, 7)
