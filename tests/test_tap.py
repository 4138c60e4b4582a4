import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from quick_jit import quick_init

from cnn_jax.layers import perturbed, taken, tap


class Net(nn.Module):
    tapped: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3, name="hidden")(x)
        return nn.Dense(2, name="two")(tap(self, "hidden", x) if self.tapped else x)


X = jnp.ones((4, 5))
VARIABLES = quick_init(Net(), X)


def test_a_tap_is_there_when_asked_for():
    y, taps = Net().apply(VARIABLES, X, mutable=["intermediates"])
    np.testing.assert_array_equal(taps["intermediates"]["taps"]["hidden"] @ VARIABLES["params"]["two"]["kernel"], y)


def test_a_tap_leaves_no_trace_when_not_asked_for():
    assert set(VARIABLES) == {"params"}
    with_tap = jax.make_jaxpr(lambda x: Net().apply(VARIABLES, x))(X)
    without = jax.make_jaxpr(lambda x: Net(tapped=False).apply(VARIABLES, x))(X)
    assert str(with_tap) == str(without)


class Around(nn.Module):
    """A head on a tap of a backbone whose layers stay at the top."""

    backbone: nn.Module

    def setup(self):
        nn.share_scope(self, self.backbone)

    @nn.compact
    def __call__(self, x):
        with taken() as taps:
            self.backbone(x)
        return nn.Dense(1, name="one")(taps["hidden"])


def test_a_module_takes_the_taps_of_its_backbone():
    variables = quick_init(Around(Net()), X)
    assert set(variables["params"]) == {"hidden", "two", "one"}
    hidden, one = variables["params"]["hidden"], variables["params"]["one"]
    expected = (X @ hidden["kernel"] + hidden["bias"]) @ one["kernel"] + one["bias"]
    # Two products of five and three values each: rounding alone.
    np.testing.assert_allclose(Around(Net()).apply(variables, X), expected, rtol=1e-5)


def test_what_is_added_to_a_tap_goes_on_from_there_and_ends_with_the_context():
    bare = Net().apply(VARIABLES, X)
    with perturbed({"hidden": jnp.ones((1, 1)), "elsewhere": jnp.zeros(7)}):
        moved, state = Net().apply(VARIABLES, X, mutable=["intermediates"])
    two = VARIABLES["params"]["two"]["kernel"]
    np.testing.assert_allclose(moved, bare + two.sum(0), rtol=1e-5)
    assert (Net().apply(VARIABLES, X) == bare).all()
    own = Net().apply(VARIABLES, X, mutable=["intermediates"])[1]["intermediates"]["taps"]["hidden"]
    np.testing.assert_allclose(state["intermediates"]["taps"]["hidden"], own + 1, rtol=1e-6)
