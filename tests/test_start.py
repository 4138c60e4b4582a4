"""What a run may start from."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from cnn_jax import UserError, export_state_dict, model_info
from cnn_jax.compilation import jit_once
from cnn_jax.data.order import Timeline
from cnn_jax.recipes import RECIPES, Optimizer, Recipe
from cnn_jax.training.program import Program
from cnn_jax.training.start import check_start, read_start, start_from

LENET = RECIPES["lenet5_modern"]


def program(config):
    return Program(config, Timeline(size=80, batch_size=8, epochs=2), classes=10, channels=1)


def test_layers_of_another_run_are_taken_where_they_fit():
    made = program(replace(LENET, optimizer=Optimizer(ema=0.9)))
    state = jit_once(made.init)(0)
    others = jax.tree.map(np.asarray, jit_once(made.init)(1).params)
    layers = sorted(others)
    head = layers[-1] if "head" not in others else "head"
    others[head] = {name: value[..., :5] for name, value in others[head].items()}
    started, taken = start_from(state, {"params": others}, ("*",))
    assert taken == [layer for layer in layers if layer != head]
    for layer in layers:
        wanted = state.params if layer == head else others
        for name, value in started.params[layer].items():
            np.testing.assert_array_equal(value, wanted[layer][name])
            np.testing.assert_array_equal(started.ema["params"][layer][name], wanted[layer][name])
    assert start_from(state, {"params": others}, (layers[0],))[1] == [layers[0]]
    with pytest.raises(UserError, match="no layer that fc\\* conv9 names has the same name and shape there"):
        start_from(state, {"params": others}, ("fc*", "conv9"))


def test_running_statistics_come_with_their_layers():
    made = program(Recipe(model="resnet20_cifar"))
    state = jit_once(made.init)(0)
    others = jax.tree.map(lambda x: np.asarray(x) + 1, state.variables)
    started, taken = start_from(state, others, ("stem*", "stage1*"))
    assert all(name.startswith(("stem", "stage1")) for name in taken)
    for kind in ("params", "batch_stats"):
        for name, part in started.variables[kind].items():
            moved = int(name.startswith(("stem", "stage1")))
            for new, old in zip(jax.tree.leaves(part), jax.tree.leaves(state.variables[kind][name]), strict=True):
                np.testing.assert_array_equal(new, old + moved)


def test_published_weights_are_a_start_for_grey_images_too(tmp_path, monkeypatch):
    tag = "squeezenet1_1.tv_in1k"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shapes = model_info("squeezenet1_1").structure.variables
    drawn = jax.tree.map(lambda leaf: np.random.default_rng(leaf.size).standard_normal(leaf.shape, np.float32), shapes)
    folder = tmp_path / "cnn_jax" / "weights"
    folder.mkdir(parents=True)
    save_file(export_state_dict("squeezenet1_1", drawn), folder / "squeezenet1_1-b8a52dc0.pth")
    check_start(tag)
    found = read_start(tag, channels=1)["params"]
    np.testing.assert_allclose(
        found["conv1"]["kernel"], drawn["params"]["conv1"]["kernel"].sum(2, keepdims=True), rtol=1e-6
    )
    np.testing.assert_array_equal(found["fire5"]["squeeze"]["kernel"], drawn["params"]["fire5"]["squeeze"]["kernel"])


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("{tmp}", "is no folder of a run: it has no checkpoints"),
        ("resnet50.tv_in2k", "unknown weights 'resnet50.tv_in2k'; did you mean resnet50.tv_in1k"),
        ("resnet50", "say which weights of resnet50: "),
        ("nowhere/run", "no file or folder nowhere/run"),
    ],
)
def test_what_is_no_start_is_told(start, message, tmp_path):
    with pytest.raises(UserError, match=message):
        check_start(start.format(tmp=tmp_path))
