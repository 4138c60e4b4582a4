"""Every class of networks can be looked into: all that needs no numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import SMALL

from cnn_jax import create_model, model_info
from cnn_jax.models.structure import structure
from cnn_jax.visualize import deconvnet, first_filters, gradcam, input_gradient


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_network_can_be_looked_into(name):
    """Gradients by its last map, backward rules of its ReLUs, a projection from each tap's channel, first filters."""
    model, channels = create_model(name, **SMALL[name] | {"num_classes": 10}), model_info(name).input_size[2]
    size = 32 if name.startswith("lenet") else 96
    found = structure(model, (size, size, channels))
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    for look, shape in (
        (lambda variables, x: gradcam(model, variables, x, 3), images.shape[:3]),
        (lambda variables, x: input_gradient(model, variables, x, 3, rule="guided"), images.shape),
        (lambda variables, x: deconvnet(model, variables, x, next(iter(found.taps)), 1), images.shape),
    ):
        made = jax.eval_shape(look, found.variables, images)
        assert (made.shape, made.dtype) == (shape, jnp.float32)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), found.variables)
    assert first_filters(model, zeros, images.shape[1:]).shape[3] == channels
