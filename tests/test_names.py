import numpy as np
import pytest

from cnn_jax import list_models, model_info
from cnn_jax.weights.layout import _current_names
from cnn_jax.weights.names import TABLES, aliases_for, table_for

REFERENCES = [reference for name in list_models() for reference in model_info(name).references]


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_reference_has_a_table(reference):
    assert table_for(reference)


def test_every_table_serves_a_reference():
    served = {id(table_for(reference)) for reference in REFERENCES}
    assert served == {id(table) for table in TABLES.values()}


def test_old_densenet_keys_have_todays_names():
    assert aliases_for("torchvision.densenet121") and not aliases_for("torchvision.resnet50")


@pytest.mark.parametrize(
    ("reference", "published", "todays"),
    [
        ("keras.VGG16", "block1_conv1/block1_conv1_W_1", "block1_conv1/kernel"),
        ("keras.VGG16", "fc1/fc1_b_1", "fc1/bias"),
        ("keras.ResNet50", "probs/kernel", "predictions/kernel"),
        ("keras.DenseNet121", "conv1/bn/gamma", "conv1_bn/gamma"),
        ("keras.DenseNet121", "fc1000/bias", "predictions/bias"),
        ("keras.MobileNet", "conv_dw_1/depthwise_kernel", "conv_dw_1/kernel"),
        ("keras.MobileNetV2(alpha=0.35)", "block_1_depthwise/depthwise_kernel", "block_1_depthwise/kernel"),
        ("keras.MobileNetV2", "Logits/kernel", "predictions/kernel"),
        ("keras.MobileNetV3Small", "Conv_1/BatchNorm/gamma", "conv_1_bn/gamma"),
        ("keras.MobileNetV3Small", "expanded_conv/depthwise/depthwise_kernel", "expanded_conv_depthwise/kernel"),
        ("keras.MobileNetV3Small", "expanded_conv_1/expand/BatchNorm/beta", "expanded_conv_1_expand_bn/beta"),
        (
            "keras.MobileNetV3Large",
            "expanded_conv_12/squeeze_excite/Conv_1/bias",
            "expanded_conv_12_squeeze_excite_conv_1/bias",
        ),
        ("keras.MobileNetV3Large", "Logits/bias", "logits/bias"),
        ("keras.Xception", "block2_sepconv1/depthwise_kernel", "block2_sepconv1/depthwise_kernel"),
    ],
)
def test_keras_published_files_have_todays_names(reference, published, todays):
    assert list(_current_names({published: np.zeros(1)}, reference)) == [todays]
