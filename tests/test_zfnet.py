import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_init

from cnn_jax import create_model
from cnn_jax.models.structure import structure


def test_maps_have_the_sizes_of_figure_3():
    taps = structure(create_model("zfnet"), (224, 224, 3)).taps
    sizes = {name: shape[0] for name, shape in taps.items() if len(shape) == 3}
    assert sizes == {"conv1": 110, "conv2": 26, "conv3": 13, "conv4": 13, "conv5": 13, "pool5": 6}
    assert [taps[f"conv{i}"][-1] for i in range(1, 6)] == [96, 256, 384, 384, 256]


def test_kernels_are_7x7_then_5x5_then_3x3_without_groups():
    params = structure(create_model("zfnet"), (224, 224, 3)).variables["params"]
    shapes = [params[f"conv{i}"]["kernel"].shape for i in range(1, 6)]
    assert shapes == [(7, 7, 3, 96), (5, 5, 96, 256), (3, 3, 256, 384), (3, 3, 384, 384), (3, 3, 384, 256)]
    assert params["fc6"]["kernel"].shape == (6, 6, 256, 4096)


def test_the_wider_net_has_512_1024_512_maps_as_in_table_2():
    taps = structure(create_model("zfnet_512"), (224, 224, 3)).taps
    assert [taps[f"conv{i}"][-1] for i in range(3, 6)] == [512, 1024, 512]


def test_contrast_is_normalised_after_pooling():
    def normalised():
        _, state = create_model("zfnet").init_with_output(
            jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False, capture_intermediates=True, mutable=True
        )
        return [state["intermediates"][f"lrn{i}"]["__call__"][0] for i in (1, 2)]

    assert [leaf.shape for leaf in jax.eval_shape(normalised)] == [(1, 55, 55, 96), (1, 13, 13, 256)]


def test_weights_start_at_a_deviation_of_a_hundredth_and_biases_at_zero():
    model = create_model("zfnet", stem="cifar", widths=(96, 32, 32, 32, 32), num_classes=10)
    params = quick_init(model, jnp.zeros((1, 28, 28, 3)), train=False)["params"]
    for layer, values in params.items():
        np.testing.assert_array_equal(values["bias"], 0, err_msg=layer)
        # conv1 has 2,592 draws: 1.4% off at one sigma.
        np.testing.assert_allclose(np.std(values["kernel"]), 0.01, rtol=0.05, err_msg=layer)


@pytest.mark.parametrize("size", [(28, 28, 1), (32, 32, 3), (64, 64, 3)])
def test_the_cifar_stem_suits_small_images(size):
    found = structure(create_model("zfnet", stem="cifar", num_classes=10), size)
    assert found.taps["conv1"][:2] == size[:2] and min(found.taps["pool5"]) >= 1
    assert found.output == (10,) and found.macs < 4 * 10**8
