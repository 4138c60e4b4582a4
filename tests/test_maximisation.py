import jax
import numpy as np
import pytest
from small_cnn import SmallCNN, small_images, small_variables

from cnn_jax import UserError, create_model, extract_features
from cnn_jax.models.structure import structure
from cnn_jax.visualize import activation_maximization, first_filters

NET, VARIABLES, SHAPE = SmallCNN(), small_variables(), (24, 24, 3)


def test_an_image_made_for_a_class_beats_every_other_image_and_every_other_class():
    made = activation_maximization(NET, VARIABLES, 2, SHAPE, steps=60)
    logits, noise = (np.asarray(NET.apply(VARIABLES, x, train=False)) for x in (made[None], small_images()))
    assert made.shape == SHAPE and logits.argmax() == 2 and logits[0, 2] > noise[:, 2].max() + 1


def test_an_image_made_for_a_channel_drives_it():
    made = activation_maximization(NET, VARIABLES, 7, SHAPE, layer="conv2", steps=40)
    driven, usual = (
        np.asarray(extract_features(NET, VARIABLES, x, "conv2")["conv2"])[..., 7].mean()
        for x in (made[None], small_images())
    )
    assert driven > 2 * usual


def test_it_is_drawn_from_its_key_alone_and_decays():
    def make(**options):
        return np.asarray(activation_maximization(NET, VARIABLES, 1, SHAPE, steps=5, **options))

    np.testing.assert_array_equal(make(), make(key=jax.random.key(0)))
    assert (make(key=jax.random.key(1)) != make()).any()
    assert np.square(make(decay=100.0)).sum() < np.square(make()).sum()
    assert (activation_maximization(NET, VARIABLES, 1, SHAPE, steps=0) == 0).all()


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    # LeCun 1998, fig. 2; Krizhevsky 2012, sec. 3.5; He 2015, table 1.
    [
        ("lenet5", (32, 32, 1), (6, 5, 5, 1)),
        ("alexnet", (224, 224, 3), (96, 11, 11, 3)),
        ("resnet18", (64, 64, 3), (64, 7, 7, 3)),
    ],
)
def test_first_filters_are_those_of_the_paper(name, shape, expected):
    model = create_model(name)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), structure(model, shape).variables)
    kernel = variables["params"][structure(model, shape).layers[0].path.split("/")[0]]
    while "kernel" not in kernel:
        kernel = kernel["conv"]
    kernel["kernel"][..., 2] = 1
    filters = first_filters(model, variables, shape)
    assert filters.shape == expected
    assert filters[2].min() == 1 and np.abs(np.delete(filters, 2, 0)).max() == 0


def test_mistakes_are_told():
    for call, line in (
        (lambda: activation_maximization(NET, VARIABLES, 5, SHAPE), "must be a class, at least 0 and below 5, not 5"),
        (lambda: activation_maximization(NET, VARIABLES, 12, SHAPE, layer="conv2"), "a channel of conv2"),
        (lambda: activation_maximization(NET, VARIABLES, 1, SHAPE, steps=-1), "numbers of at least 0"),
        (lambda: activation_maximization(NET, VARIABLES, 1, SHAPE, layer="conv"), "did you mean conv"),
    ):
        with pytest.raises(UserError, match=line):
            call()
