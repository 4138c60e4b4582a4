"""Networks that embed, beside facenet-pytorch's; the other layers keep their names, for weights and for freezing."""

from functools import partial

import flax.linen as nn
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import quick_apply, quick_init, quick_jit

from cnn_jax import UserError, create_model, import_state_dict, transfer
from cnn_jax.embedding import Embedder, arcface_logits, arcface_loss
from cnn_jax.layers import BatchNorm
from cnn_jax.models.structure import structure

IMAGES = np.random.default_rng(0).standard_normal((6, 4, 4, 1)).astype(np.float32)


class Flat(nn.Module):
    """A small backbone: a linear layer over all pixels."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.relu(nn.Dense(9, name="stem")(x.reshape(len(x), -1)))


def embedder(**options):
    return Embedder(Flat(), **options)


def test_embeddings_have_length_1_and_float32():
    for options in ({"dim": 7}, {"dim": None}, {"dim": 7, "norm": BatchNorm, "dtype": jnp.bfloat16}):
        model = embedder(**options)
        found = quick_apply(model, quick_init(model, IMAGES, train=False), IMAGES, train=False)
        assert found.shape == (6, options["dim"] or 9) and found.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_the_backbone_keeps_the_names_of_its_layers():
    """So runs and published weights are started from, and layers frozen, as those of a classifier."""
    model = Embedder(create_model("resnet20_cifar", num_classes=0), directions=5)
    own = structure(create_model("resnet20_cifar"), (32, 32, 3)).variables
    found = structure(model, (32, 32, 3)).variables
    assert {*found["params"]} == {*own["params"], "aux_arcface"}
    assert found["params"]["head"]["kernel"].shape == (64, 128) and {*found["params"]["head"]} == {"kernel"}
    assert found["params"]["aux_arcface"]["kernel"].shape == (128, 5)
    assert jax.tree.structure(found["batch_stats"]) == jax.tree.structure(own["batch_stats"])
    names = transfer.layer_names(model, (32, 32, 3))
    assert names == transfer.layer_names(create_model("resnet20_cifar"), (32, 32, 3))  # directions are none


def test_embeddings_are_the_backbones_features_through_the_layer():
    model = embedder(dim=5)
    variables = quick_init(model, IMAGES, train=False)
    stem, head = (variables["params"][name] for name in ("stem", "head"))
    features = np.maximum(IMAGES.reshape(6, -1) @ stem["kernel"] + stem["bias"], 0) @ head["kernel"]
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(quick_apply(model, variables, IMAGES, train=False), expected, rtol=1e-4, atol=1e-5)


def test_directions_go_out_in_training_and_make_arcfaces_loss():
    model, labels = embedder(dim=5, directions=3), np.arange(6) % 3
    variables = quick_init(model, IMAGES, train=False)
    trained = partial(model.apply, train=True, mutable=["batch_stats", "aux_logits"])
    embeddings, moved = quick_jit(trained)(variables, IMAGES)
    cosines = moved["aux_logits"]["aux_arcface"]["logits"]
    weight = variables["params"]["aux_arcface"]["kernel"]
    np.testing.assert_allclose(cosines, embeddings @ (weight / np.linalg.norm(weight, axis=0)), rtol=1e-4, atol=1e-5)
    likely = jax.nn.log_softmax(arcface_logits(cosines, labels, 0.3, 8))[np.arange(6), labels]
    np.testing.assert_allclose(arcface_loss(embeddings, labels, weight, 0.3, 8), -likely.mean(), rtol=1e-4)
    _, tested = quick_jit(partial(model.apply, train=False, mutable=["aux_logits"]))(variables, IMAGES)
    assert not tested


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*the head is left out")
def test_faces_embed_as_facenet_pytorchs():
    """InceptionResnetV1(classify=False) of facenet-pytorch 2.6.0 at 160 pixels; its weights and statistics are drawn as
    tests/golden/README.md says. Float32 is 4e-6 from float64 there."""
    golden = golden_files.load("facenet_pytorch.InceptionResnetV1")
    variables = import_state_dict("inception_resnet_v1", golden_files.weights(golden), num_classes=0)
    model = Embedder(create_model("inception_resnet_v1", num_classes=0), dim=None)
    found = quick_apply(model, variables, golden_files.images(0, 2, 160), train=False)
    with np.load(golden_files.FOLDER / "embeddings" / "facenet_pytorch.InceptionResnetV1.npz") as file:
        np.testing.assert_allclose(found, file["embeddings"], atol=4e-5 * np.abs(file["embeddings"]).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be a whole number above 0 or None, not 0"),
        ({"directions": -1}, "directions must be a whole number, 0 for features, not -1"),
        ({"norm": True}, "norm must be"),
    ],
)
def test_options_that_no_embedder_has_are_told(options, message):
    with pytest.raises(UserError, match=message):
        embedder(**options)
