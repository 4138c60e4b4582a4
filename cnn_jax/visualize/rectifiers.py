"""Other backward rules for ReLUs: what tells guided backpropagation and a deconvnet from the gradient.

Both are the backward pass of the network but for one rule. A convolution's is the transposed one, with the filters
flipped, and max pooling's puts what comes back where the maximum was, which are a deconvnet's switches (Zeiler &
Fergus 1311.2901, sec. 2.1; Simonyan 1312.6034, sec. 4); where windows overlap and share a maximum, it is their sum.

Where the ReLUs are, the traced program says: `jax.nn.relu` and `relu6` keep their names in a jaxpr, within blocks that
are scanned or rematerialised too. So the networks are written as ever, and any other module of Flax's will do.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

Rule = Literal["gradient", "guided", "deconvnet"]

TOPS = {"relu": math.inf, "relu6": 6.0}
WHOLE = ("hard_sigmoid", "hard_silu")  # made with relu6, but no rectifiers


def with_rule(function: Callable, rule: Rule) -> Callable:
    """`function` of arrays, whose ReLUs pass g, what comes back from above, by another rule.

    "gradient": g where the input was above 0. "deconvnet": g where g is above 0 (Zeiler & Fergus, sec. 2.1).
    "guided": g where both are (Springenberg 1412.6806, sec. 3.4). A ReLU6 counts as one; above 6 it passes what its
    gradient does, nothing, but to "deconvnet". Sigmoids and what is made with them keep their gradients.

    It can be differentiated once, in reverse mode.
    """
    if rule == "gradient":
        return function

    def changed(*arrays: Any) -> Any:
        program, shape = jax.make_jaxpr(function, return_shape=True)(*arrays)
        outputs = jaxpr_as_fun(_rewritten(program, rule))(*jax.tree.leaves(arrays))
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return changed


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rectified(rule: Rule, top: float, x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, top)


def _forward(rule: Rule, top: float, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.clip(x, 0, top), (x > 0) & (x < top)


def _backward(rule: Rule, top: float, inside: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    passed = jnp.maximum(g, 0)
    return (jnp.where(inside, passed, 0) if rule == "guided" else passed,)


_rectified.defvjp(_forward, _backward)


def _rewritten(value: Any, rule: Rule) -> Any:
    """A program with the ReLUs' rule, or several; anything else as it is."""
    if isinstance(value, tuple | list):
        return type(value)(_rewritten(each, rule) for each in value) if _programs(value) else value
    if isinstance(value, Jaxpr):  # since jax 0.12 a closed one is no other
        return value.replace(eqns=[_changed(equation, rule) for equation in value.eqns])
    if isinstance(value, ClosedJaxpr):
        return ClosedJaxpr(_rewritten(value.jaxpr, rule), value.consts)
    return value


def _changed(equation: JaxprEqn, rule: Rule) -> JaxprEqn:
    if (top := _top(equation)) and len(equation.invars) == 1:  # a scan leaves some that compute nothing
        (own,) = jax.make_jaxpr(partial(_rectified, rule, top))(equation.invars[0].aval).eqns
        return own.replace(invars=equation.invars, outvars=equation.outvars)
    if not _holds(equation):
        return equation
    return equation.replace(params={name: _rewritten(value, rule) for name, value in equation.params.items()})


def _top(equation: JaxprEqn) -> float | None:
    """Where the rectifier that an equation is ends; None for all other equations."""
    name = equation.primitive.name
    if name == "jit":
        return TOPS.get(equation.params["name"])
    if name == "custom_jvp_call" and len(body := equation.params["call_jaxpr"].eqns) == 1:
        return _top(body[0])
    return None


def _holds(equation: JaxprEqn) -> bool:
    """Whether an equation has a rectifier inside that is to be changed. What has derivatives of its own keeps them."""
    name = equation.primitive.name
    if name.startswith("custom_") or (name == "jit" and equation.params["name"] in WHOLE):
        return False
    inside = (each for value in equation.params.values() for inner in _programs(value) for each in inner.eqns)
    return any(_top(each) or _holds(each) for each in inside)


def _programs(value: Any) -> list:
    several = value if isinstance(value, tuple | list) else [value]
    return [each for each in several if isinstance(each, Jaxpr | ClosedJaxpr)]
