import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init

from cnn_jax import create_model
from cnn_jax.models.structure import structure

IMAGE = (224, 224, 3)


def hidden_widths(name):
    return [
        layer.shape[-1] for layer in structure(create_model(name), IMAGE).layers if layer.path.endswith("se/reduce")
    ]


def test_gates_of_the_authors_nets_have_a_sixteenth_of_the_channels():
    blocks = (3, 4, 6, 3)
    wide = [w for w, n in zip((16, 32, 64, 128), blocks, strict=True) for _ in range(n)]
    narrow = [w for w, n in zip((4, 8, 16, 32), blocks, strict=True) for _ in range(n)]
    assert hidden_widths("legacy_seresnet50") == hidden_widths("seresnet50") == wide
    assert hidden_widths("legacy_seresnet34") == narrow
    assert hidden_widths("seresnet34") == [max(8, w) for w in narrow]  # timm rounds to a multiple of 8


def test_gates_add_what_eq_5_counts():
    # 2 / r * sum of N_s C_s^2 weights and, here, biases: C / r + C a block.
    for gated, bare in (("seresnet50", "resnet50"), ("legacy_seresnet101", "resnet101_v1"),
                        ("legacy_seresnext50_32x4d", "resnext50_32x4d")):  # fmt: skip
        with_gates, without = (structure(create_model(name), IMAGE) for name in (gated, bare))
        blocks = (3, 4, 23, 3) if "101" in gated else (3, 4, 6, 3)
        widths = (256, 512, 1024, 2048)
        weights = sum(2 * n * c * c // 16 for n, c in zip(blocks, widths, strict=True))
        biases = sum(n * (c // 16 + c) for n, c in zip(blocks, widths, strict=True))
        assert with_gates.params - without.params == weights + biases
        assert with_gates.macs - without.macs == weights


@pytest.mark.parametrize(
    ("name", "billions"), [("legacy_seresnet50", 3.86), ("legacy_seresnet101", 7.57), ("seresnet50", 4.09)]
)
def test_only_the_authors_nets_halve_the_image_in_the_first_1x1(name, billions):
    assert abs(structure(create_model(name), IMAGE).macs / 1e9 - billions) < 0.01


@pytest.mark.parametrize("name", ["senet154", "legacy_senet154"])
def test_senet154_is_what_the_appendix_describes(name):
    model = create_model(name)
    params = structure(model, IMAGE).variables["params"]
    assert [params[f"stem{i}"]["conv"]["kernel"].shape for i in (1, 2, 3)] == [
        (3, 3, 3, 64),
        (3, 3, 64, 64),
        (3, 3, 64, 128),
    ]
    block = params["stage3_block1"]
    assert block["conv1"]["conv"]["kernel"].shape == (1, 1, 512, 512)
    assert block["conv2"]["conv"]["kernel"].shape == (3, 3, 512 // 64, 1024)
    assert block["conv3"]["conv"]["kernel"].shape == (1, 1, 1024, 1024)
    assert block["shortcut"]["project"]["conv"]["kernel"].shape[:2] == (3, 3)
    assert params["stage1_block1"]["shortcut"]["project"]["conv"]["kernel"].shape[:2] == (1, 1)
    assert model.dropout == 0.2


def test_the_small_legacy_nets_rectify_before_the_gate_and_the_others_do_not():
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    lowest = {}
    for name in ("legacy_seresnet18", "seresnet18"):
        model = create_model(name, num_classes=0).clone(stages=(1,))
        variables = quick_init(model, x, train=False)
        _, state = quick_apply(model, variables, x, train=False, capture_intermediates=True, mutable=["intermediates"])
        lowest[name] = float(jnp.min(state["intermediates"]["stage1_block1"]["conv2"]["__call__"][0]))
    assert lowest["legacy_seresnet18"] == 0
    assert lowest["seresnet18"] < 0


def test_a_gate_scales_the_branch_before_the_addition():
    model = create_model("seresnet18", num_classes=0).clone(stages=(1,))
    x = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    variables = quick_init(model, x, train=False)
    gate = variables["params"]["stage1_block1"]["se"]["expand"]
    gate["kernel"], gate["bias"] = jnp.zeros_like(gate["kernel"]), jnp.full_like(gate["bias"], -200.0)  # shut
    _, state = quick_apply(model, variables, x, train=False, mutable=["intermediates"])
    taps = state["intermediates"]["taps"]
    stem = np.pad(taps["stem"], [(0, 0), (1, 1), (1, 1), (0, 0)])  # at least 0: padding never wins
    pooled = np.stack([[stem[0, i : i + 3, j : j + 3].max((0, 1)) for j in range(0, 16, 2)] for i in range(0, 16, 2)])
    np.testing.assert_allclose(taps["stage1"][0], pooled, atol=1e-6)
