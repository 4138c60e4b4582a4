"""Other backward rules for ReLUs, against NumPy and against Captum."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cnn import TARGETS, SmallCNN, attributions, small_images, small_variables

from cnn_jax import create_model, model_info
from cnn_jax.models.structure import structure
from cnn_jax.visualize import input_gradient
from cnn_jax.visualize.rectifiers import with_rule

X = jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0, 7.0])
G = jnp.array([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("function", "rule", "passed"),
    [
        (nn.relu, "gradient", [0, 0, 0, -1, 1, 1]),
        (nn.relu, "guided", [0, 0, 0, 0, 1, 1]),
        (nn.relu, "deconvnet", [1, 0, 1, 0, 1, 1]),
        (nn.relu6, "guided", [0, 0, 0, 0, 1, 0]),
        (nn.relu6, "deconvnet", [1, 0, 1, 0, 1, 1]),
    ],
)
def test_each_rule_passes_what_its_paper_says(function, rule, passed):
    """Springenberg 2014, fig. 1: where the input was above 0, where what comes back is, or both."""
    output, back = jax.vjp(with_rule(function, rule), X)
    assert output.tolist() == function(X).tolist()
    assert back(G)[0].tolist() == passed


@pytest.mark.parametrize("function", [nn.hard_swish, nn.hard_sigmoid, nn.swish, nn.tanh, jnp.abs, nn.gelu])
def test_what_is_no_rectifier_keeps_its_gradient(function):
    for rule in ("guided", "deconvnet"):
        assert jax.vjp(with_rule(function, rule), X)[1](G)[0].tolist() == jax.vjp(function, X)[1](G)[0].tolist()


@pytest.mark.parametrize(("rule", "remat"), [("guided", False), ("guided", True), ("deconvnet", False)])
def test_gradients_of_a_network_are_captums(rule, remat):
    model, expected = SmallCNN(remat=remat), attributions()[rule]
    found = input_gradient(model, small_variables(), jnp.asarray(small_images()), TARGETS, rule=rule)
    # float32 against float64 through five layers.
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def rules_in(jaxpr) -> int:
    """Equations with a backward rule of their own, at any depth."""
    inner = [each for eqn in jaxpr.eqns for each in jax.tree.leaves([*eqn.params.values()], is_leaf=is_program)]
    here = sum(eqn.primitive.name.startswith("custom_vjp") for eqn in jaxpr.eqns)
    return here + sum(rules_in(getattr(each, "jaxpr", each)) for each in inner if is_program(each))


def is_program(value) -> bool:
    return hasattr(value, "eqns")


# As many as torchvision 0.29.1 calls nn.ReLU in evaluation (in MobileNetV3 beside hard swish, and in its gates beside
# hard sigmoid); resnet20_cifar: one behind each of 19 convolutions.
@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet20_cifar", {}, 19),
        ("resnet20_cifar", {"remat": True}, 19),
        ("resnet20_cifar", {"scan": True}, 13),  # of two equal blocks of a stage a program has one
        ("vgg11", {}, 10),
        pytest.param("mobilenetv3_small_100", {}, 14, marks=pytest.mark.slow),
        ("lenet5", {}, 0),  # of tanh
    ],
)
def test_every_rectifier_of_a_network_is_found(name, options, count):
    model, shape = create_model(name, **options), model_info(name).input_size
    variables = structure(model, shape).variables
    changed = with_rule(lambda images, variables: model.apply(variables, images, train=False), "guided")
    program = jax.make_jaxpr(changed)(jax.ShapeDtypeStruct((1, *shape), jnp.float32), variables)
    assert rules_in(program.jaxpr) == count
