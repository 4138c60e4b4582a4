import jax
import jax.numpy as jnp
import numpy as np
import pytest
from expected import EXPECTED

from cnn_jax import UserError, create_model, list_models, model_info
from cnn_jax.models import MODELS


def shapes(model, size=(32, 32, 1), batch=2):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((batch, *size)), train=False))


def test_every_model_has_its_row_of_expected_values():
    assert set(MODELS) == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_card_and_network_agree_with_the_published_figures(name):
    row, info = EXPECTED[name], model_info(name)
    assert (info.params, info.fixed, info.input_size, info.num_classes) == (
        row["params"],
        row["fixed"],
        row["input_size"],
        row["classes"],
    )
    variables = shapes(create_model(name), info.input_size)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == row["params"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_parameter_gets_a_finite_gradient(name):
    model, info = create_model(name), model_info(name)
    x = np.random.default_rng(0).standard_normal((8, *info.input_size)).astype(np.float32)
    variables = model.init(jax.random.key(0), x, train=False)

    def loss(params):
        logits = model.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])[0]
        return (logits * np.random.default_rng(1).standard_normal(logits.shape)).sum()

    grads = jax.grad(loss)(variables["params"])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_logits_are_float32_in_bfloat16_and_near_the_float32_ones(name):
    info = model_info(name)
    x = np.random.default_rng(0).uniform(-1, 1, (4, *info.input_size)).astype(np.float32)
    variables = create_model(name).init(jax.random.key(0), x, train=False)
    exact = create_model(name).apply(variables, x, train=False)
    rough = create_model(name, dtype=jnp.bfloat16).apply(variables, x, train=False)
    assert exact.dtype == rough.dtype == jnp.float32
    assert exact.shape == (4, info.num_classes)
    # bfloat16 keeps 8 bits: 0.4% a rounding, five layers deep.
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_image_does_not_see_its_neighbours_in_evaluation(name):
    model, info = create_model(name), model_info(name)
    x = np.random.default_rng(0).standard_normal((4, *info.input_size)).astype(np.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    together = model.apply(variables, x, train=False)
    alone = jnp.concatenate([model.apply(variables, x[i : i + 1], train=False) for i in range(4)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_zero_classes_give_features(name):
    features = jax.eval_shape(
        lambda: create_model(name, num_classes=0).init_with_output(
            jax.random.key(0), jnp.zeros((2, *model_info(name).input_size)), train=False
        )[0]
    )
    assert features.shape == (2, 84)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_train_is_keyword_only_and_has_no_default(name):
    model, x = create_model(name), jnp.zeros((1, *model_info(name).input_size))
    with pytest.raises(TypeError):
        model.init(jax.random.key(0), x)


def test_channels_follow_the_input():
    params = shapes(create_model("lenet5_modern"), (32, 32, 3))["params"]
    assert params["c1"]["kernel"].shape == (5, 5, 3, 6)


def test_list_models_takes_globs():
    assert list_models() == sorted(MODELS)
    assert list_models("*modern") == ["lenet5_modern"]
    assert list_models("no such*") == []


def test_an_unknown_model_is_told_with_near_names():
    with pytest.raises(UserError, match=r"unknown model 'lenet5_modrn'; did you mean lenet5_modern"):
        create_model("lenet5_modrn")


def test_an_unknown_option_is_told_with_near_names():
    with pytest.raises(UserError, match=r"unknown option of lenet5 'num_clases'; did you mean num_classes\?"):
        create_model("lenet5", num_clases=10)
