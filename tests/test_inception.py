import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import create_model
from cnn_jax.models.inception import AVG
from cnn_jax.models.structure import structure


def test_outputs_have_the_sizes_of_table_1_and_the_released_widths():
    taps = structure(create_model("inception_v3"), (299, 299, 3)).taps
    assert taps["conv_2b"] == (147, 147, 64)
    assert taps["conv_4a"] == (71, 71, 192)
    assert taps["mixed_5b"] == (35, 35, 256)
    assert taps["mixed_5d"] == (35, 35, 288)
    assert all(taps[f"mixed_6{letter}"] == (17, 17, 768) for letter in "abcde")
    assert taps["mixed_7a"] == (8, 8, 1280)
    assert taps["mixed_7b"] == taps["mixed_7c"] == (8, 8, 2048)


def test_7x7_is_factorised_into_rows_and_columns_in_the_widths_128_160_160_192():
    params = structure(create_model("inception_v3"), (299, 299, 3)).variables["params"]
    for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
        module = params[f"mixed_6{letter}"]
        roles = ("double_column1", "double_row1", "double_column2", "double_row2")
        shapes = [module[role]["conv"]["kernel"].shape for role in roles]
        assert shapes == [(7, 1, width, width), (1, 7, width, width), (7, 1, width, width), (1, 7, width, 192)]


def test_average_pools_count_their_padding():
    y = AVG(np.ones((1, 3, 3, 1), np.float32))[0, :, :, 0]
    np.testing.assert_allclose(y, np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]]) / 9, rtol=1e-6)


@pytest.mark.parametrize(
    ("stem", "size"), [("imagenet", (299, 299, 3)), ("imagenet", (192, 192, 3)), ("cifar", (28, 28, 1))]
)
def test_the_auxiliary_head_gives_logits_in_training_at_any_size(stem, size):
    model = create_model("inception_v3", stem=stem, num_classes=7, dropout=0.0)

    def run():
        x = jnp.zeros((2, *size))
        variables = model.init(jax.random.key(0), x, train=False)
        return model.apply(variables, x, train=True, mutable=["aux_logits", "batch_stats"])

    logits, changed = jax.eval_shape(run)
    assert logits.shape == changed["aux_logits"]["aux1"]["logits"].shape == (2, 7)


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_cifar_stem_halves_the_image_once(size):
    taps = structure(create_model("inception_v3", stem="cifar"), (size, size, 1)).taps
    sizes = [taps[name][0] for name in ("conv_2b", "conv_4a", "mixed_5b", "mixed_6a", "mixed_7a")]
    assert sizes == [size, size, size // 2, size // 4, -(-size // 8)]
