"""BN-Inception: Ioffe & Szegedy 2015 (1502.03167), sec. 4.2."""

from cnn_jax.recipes.datasets import ANY_CROP, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

RECIPES = {
    # BN-x30: asynchronous SGD becomes synchronous. How much momentum and weight decay is not given: 0.9, and a fifth
    # (sec. 4.2.1) of the 2e-4 of Caffe's GoogLeNet. "Reduce the photometric distortions": there are none here.
    "bn_inception_imagenet": imagenet(
        "bn_inception",
        epochs=150,  # 74.8% after 6 million steps
        batch_size=32,
        optimizer=Optimizer(lr=0.045, momentum=0.9, weight_decay=4e-5),  # sec. 4.2.2: 30 times 0.0015
        schedule=Schedule(kind="exponential", factor=0.96, every=8 / 6),  # sec. 4.2.1: 6 times faster than GoogLeNet's
        augment=ANY_CROP,
    ),
    "bn_inception_mnist": digits("bn_inception"),
}
