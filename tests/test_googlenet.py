from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError

from cnn_jax import create_model
from cnn_jax.layers import LocalResponseNorm
from cnn_jax.models.structure import structure

# Table 1: output size, and millions of multiply-adds (5a: its own widths give 51, not the printed 54).
TABLE = {
    "inception_3a": (28, 256, 128),
    "inception_3b": (28, 480, 304),
    "inception_4a": (14, 512, 73),
    "inception_4b": (14, 512, 88),
    "inception_4c": (14, 512, 100),
    "inception_4d": (14, 528, 119),
    "inception_4e": (14, 832, 170),
    "inception_5a": (7, 832, 51),
    "inception_5b": (7, 1024, 71),
}


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn"])
def test_outputs_have_the_sizes_of_table_1(name):
    taps = structure(create_model(name), (224, 224, 3)).taps
    assert taps["conv1"] == (112, 112, 64)
    assert taps["conv2"] == (56, 56, 192)
    for module, (size, channels, _) in TABLE.items():
        assert taps[module] == (size, size, channels)


def test_modules_cost_what_table_1_says():
    layers = structure(create_model("googlenet"), (224, 224, 3)).layers
    for module, (*_, millions) in TABLE.items():
        macs = sum(layer.macs for layer in layers if layer.path.startswith(module))
        assert abs(macs / 1e6 - millions) < 1.1, module


def test_the_paper_has_5x5_kernels_where_torchvision_has_3x3():
    for name, size in (("googlenet", 5), ("googlenet_bn", 3)):
        params = structure(create_model(name), (224, 224, 3)).variables["params"]
        assert params["inception_4b"]["five"]["conv"]["kernel"].shape == (size, size, 24, 64)


def test_auxiliary_heads_have_the_layers_of_section_5():
    params = structure(create_model("googlenet"), (224, 224, 3)).variables["params"]
    for name, channels in (("aux1", 512), ("aux2", 528)):
        shapes = [params[name][layer]["kernel"].shape for layer in ("fc", "head")]
        assert params[name]["reduce"]["conv"]["kernel"].shape == (1, 1, channels, 128)
        assert shapes == [(4, 4, 128, 1024), (1024, 1000)]


def test_responses_are_normalised_after_the_first_pool_and_before_the_second_as_in_caffe():
    seen = []

    def record(call, args, kwargs, context):
        if isinstance(lrn := context.module, LocalResponseNorm):
            seen.append((args[0].shape[1:], lrn.size, lrn.alpha, lrn.beta, lrn.k, lrn.divide_by_size))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        image = jnp.zeros((1, 224, 224, 3))
        jax.eval_shape(partial(create_model("googlenet").init, train=False), jax.random.key(0), image)
    caffe = (5, 1e-4, 0.75, 1.0, True)
    assert seen == [((56, 56, 64), *caffe), ((56, 56, 192), *caffe)]


def training_logits(size, **options):
    model = create_model("googlenet", stem="cifar", num_classes=7, **options)

    def run(key):
        x = jnp.zeros((2, *size))
        variables = model.init(key, x, train=False)
        assert "aux_logits" not in variables
        rngs = {"dropout": key} if options.get("dropout", 1) else {}
        return model.apply(variables, x, train=True, mutable=["aux_logits"], rngs=rngs)[1]

    return jax.eval_shape(run, jax.random.key(0)).get("aux_logits")


@pytest.mark.parametrize("size", [(28, 28, 1), (64, 64, 3)])
def test_auxiliary_logits_come_in_training_and_work_on_small_images(size):
    logits = training_logits(size)
    assert {name: head["logits"].shape for name, head in logits.items()} == {"aux1": (2, 7), "aux2": (2, 7)}


def test_without_dropout_the_auxiliary_heads_need_no_key():
    assert training_logits((28, 28, 1), dropout=0.0)
    assert not training_logits((28, 28, 1), aux=False)
    with pytest.raises(InvalidRngError, match="dropout"):
        training_logits((28, 28, 1), dropout=0.0, aux_dropout=0.7)


def test_the_last_pool_is_3x3_in_the_paper_and_2x2_in_torchvision():
    windows = {}
    for name in ("googlenet", "googlenet_bn"):
        jaxpr = jax.make_jaxpr(partial(run_zeros, create_model(name)))()
        windows[name] = [
            eqn.params["geometry"].window[0]
            for eqn in jaxpr.eqns
            if eqn.primitive.name == "window_max" and eqn.params["geometry"].stride == (2, 2)
        ]
    assert windows == {"googlenet": [3, 3, 3, 3], "googlenet_bn": [3, 3, 3, 2]}


def run_zeros(model):
    shapes = structure(model, (224, 224, 3)).variables
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    return model.apply(zeros, jnp.zeros((1, 224, 224, 3)), train=False)


def test_the_cifar_stem_leaves_14x14_of_28_pixels_to_the_first_module():
    taps = structure(create_model("googlenet", stem="cifar"), (28, 28, 1)).taps
    sizes = [taps[name][0] for name in ("conv1", "conv2", "inception_3a", "inception_4a", "inception_5b")]
    assert sizes == [28, 28, 14, 7, 3]
