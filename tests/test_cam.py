"""Class activation maps against pytorch-grad-cam and their papers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cnn import TARGETS, SmallCNN, attributions, small_images, small_variables

from cnn_jax import UserError, create_model, extract_features
from cnn_jax.visualize import gradcam, gradcam_plus_plus, layercam

NET, VARIABLES, IMAGES = SmallCNN(), small_variables(), jnp.asarray(small_images())


@pytest.mark.parametrize(
    ("method", "off"),
    # float32 against float64; pytorch-grad-cam adds 1e-6 to Grad-CAM++'s denominator, which squares gradients near 0.1.
    [(gradcam, 1e-5), (layercam, 1e-5), (gradcam_plus_plus, 2e-4)],
)
def test_maps_are_pytorch_grad_cams(method, off):
    found = np.asarray(method(NET, VARIABLES, IMAGES, TARGETS, layer="conv2"))
    assert found.shape == (2, 24, 24) and found.dtype == np.float32 and found.min() >= 0
    least, most = (found - found.min((1, 2), keepdims=True)), found.max((1, 2), keepdims=True)
    scaled = least / (most - found.min((1, 2), keepdims=True))
    np.testing.assert_allclose(scaled, attributions()[method.__name__], atol=off)


def test_on_the_last_map_grad_cam_is_the_class_activation_map_of_the_linear_layer():
    """Selvaraju 2016, sec. 3.1: behind a mean over positions the weights are the head's, by the number of positions."""
    maps = np.asarray(extract_features(NET, VARIABLES, IMAGES, "conv3")["conv3"])
    positions = maps.shape[1] * maps.shape[2]
    head = np.asarray(VARIABLES["params"]["head"]["kernel"])
    expected = np.maximum((maps * head[:, TARGETS].T[:, None, None] / positions).sum(-1), 0)
    found = gradcam(NET, VARIABLES, IMAGES, TARGETS)  # its own choice of layer
    expected = jax.image.resize(expected, (2, 24, 24), "bilinear")
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("remat", [False, True])
def test_a_layer_goes_by_its_path_too(remat):
    """The tap conv2 is what layer2 gives."""
    by_tap, by_path = (
        gradcam(SmallCNN(remat=remat), VARIABLES, IMAGES, TARGETS, layer=name) for name in ("conv2", "layer2")
    )
    np.testing.assert_allclose(by_tap, by_path, atol=1e-6)
    before = gradcam(SmallCNN(remat=remat), VARIABLES, IMAGES, TARGETS, layer="layer2/conv")
    assert np.abs(np.asarray(before) - np.asarray(by_tap)).max() > 1e-3


def test_it_leaves_a_network_as_it_is():
    program = str(jax.make_jaxpr(lambda x: NET.apply(VARIABLES, x, train=False))(IMAGES))
    gradcam(NET, VARIABLES, IMAGES, 0)
    assert str(jax.make_jaxpr(lambda x: NET.apply(VARIABLES, x, train=False))(IMAGES)) == program


def test_mistakes_are_told():
    lenet = create_model("lenet5")
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape),
        jax.eval_shape(lenet.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False),
    )
    with pytest.raises(UserError, match="did you mean conv"):
        gradcam(NET, VARIABLES, IMAGES, layer="conv9")
    with pytest.raises(UserError, match="f6 of .* gives vectors, which have no places in the image"):
        gradcam(lenet, zeros, jnp.zeros((1, 32, 32, 1)), 0, layer="f6")
