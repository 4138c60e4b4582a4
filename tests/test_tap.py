import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from quick_jit import quick_init

from cnn_jax.layers import tap


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
