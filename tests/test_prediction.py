"""predict: probabilities worked out beside it, order, names, bad images, what is made ahead."""

from collections.abc import Sequence

import flax.linen as nn
import numpy as np
import pytest
from odd_images import JPEG

from cnn_jax import UserError, predict, preprocess
from cnn_jax.data.host import cores
from cnn_jax.data.imagenet import CLASSES
from cnn_jax.evaluation.evaluate import AHEAD, RUNNING
from cnn_jax.weights.cards import weight_card

RNG = np.random.default_rng(0)
SEEN = preprocess("resnet50", image_size=8, resize=10)
IMAGES = [RNG.integers(0, 256, (9 + i, 12, 3), np.uint8) for i in range(11)]


class OfMeans(nn.Module):
    """Logits of the mean of each channel."""

    num_classes: int

    @nn.compact
    def __call__(self, x, *, train):
        assert not train
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2)))


def drawn(classes: int) -> dict:
    kernel = RNG.standard_normal((3, classes), np.float32)
    return {"params": {"head": {"kernel": kernel, "bias": np.zeros(classes, np.float32)}}}


NETWORK, VARIABLES, NAMES = OfMeans(7), drawn(7), tuple("abcdefg")


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_most_probable_classes_of_each_image_come_in_order(batch_size):
    found = list(predict(NETWORK, VARIABLES, IMAGES, SEEN, classes=NAMES, top=3, batch_size=batch_size))
    e = np.exp(SEEN(IMAGES).mean((1, 2), dtype=np.float64) @ VARIABLES["params"]["head"]["kernel"])
    wanted = e / e.sum(1, keepdims=True)
    for one, image, probability in zip(found, IMAGES, wanted, strict=True):
        order = np.argsort(-probability)[:3]
        assert one.image is image and one.classes == tuple(order)
        assert one.names == tuple(NAMES[i] for i in order)
        np.testing.assert_allclose(one.probabilities, probability[order], rtol=1e-4)  # float32


def test_more_classes_than_there_are_are_all():
    (found,) = predict(NETWORK, VARIABLES, IMAGES[0], SEEN, top=10)
    assert sorted(found.classes) == list(range(7)) and sum(found.probabilities) == pytest.approx(1)
    assert found.names == tuple(map(str, found.classes))


def test_the_weights_say_what_the_classes_are_called():
    card = weight_card("resnet50.tv_in1k")

    def names(of, classes=1000):
        (found,) = predict(OfMeans(classes), drawn(classes), IMAGES[0], of, top=1)
        return found.names[0], found.classes[0]

    for of in ("resnet50.tv_in1k", card):
        name, number = names(of)
        assert name == CLASSES[number]
    name, number = names("resnet20_cifar.akamaster_cifar10", 10)
    cifar = weight_card("resnet20_cifar.akamaster_cifar10").classes
    assert name == cifar[number] and (len(cifar), cifar[3], cifar[9]) == (10, "cat", "truck")
    assert names("resnet50.tv_in1k", 7)[0].isdecimal()  # a head of one's own
    assert names("resnet50")[0].isdecimal()  # whatever weights these are
    with pytest.raises(UserError, match="has no classes to tell apart"):
        predict(OfMeans(0), {}, IMAGES, card)
    with pytest.raises(UserError, match="top must be a positive whole number, not 0"):
        predict(NETWORK, VARIABLES, IMAGES, SEEN, top=0)
    with pytest.raises(UserError, match="classes names 7 classes, the network has 1000"):
        predict(OfMeans(1000), drawn(1000), IMAGES, card, classes=NAMES)


def test_a_bad_image_ends_all_or_is_left_out(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(JPEG[:200])
    (tmp_path / "good.jpg").write_bytes(JPEG)
    paths = [str(tmp_path / name) for name in ("cut.jpg", "good.jpg", "none.jpg")]
    with pytest.raises(UserError, match="cut.jpg is a damaged JPEG"):
        list(predict(NETWORK, VARIABLES, paths, SEEN))
    told = []
    found = list(predict(NETWORK, VARIABLES, paths, SEEN, on_bad=lambda image, line: told.append((image, line))))
    assert [one.image for one in found] == paths[1:2]
    assert [image for image, _ in told] == [paths[0], paths[2]]
    assert told[1][1] == f"{paths[2]} cannot be read (No such file or directory)"


def test_none_of_no_images():
    assert list(predict(NETWORK, VARIABLES, [], SEEN)) == []


class Counted(Sequence):
    """A thousand images, and how many of them were asked for."""

    def __init__(self):
        self.asked = set()

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        self.asked.add(index)
        return IMAGES[index % len(IMAGES)]


def test_only_some_steps_are_made_ahead():
    images = Counted()
    found = predict(NETWORK, VARIABLES, images, SEEN, batch_size=8)
    next(found)
    ahead = AHEAD * min(cores(), 32) + 1 + min(cores(), 32)  # waiting, and in the hands of threads
    assert len(images.asked) <= (RUNNING + 1) * 8 + ahead
    found.close()
