"""Residual networks with pre-activation: He, Zhang, Ren & Sun 2016 (1603.05027), appendix."""

from functools import partial

from cnn_jax.recipes.datasets import IMAGES_A_GPU, PAD_CROP_FLIP, cifar10, imagenet
from cnn_jax.recipes.recipe import Augment, Optimizer, Schedule
from cnn_jax.recipes.resnet_cifar import WARM_STEPS

# The authors' code is fb.resnet.torch, whose decay is on every parameter.
SGD = Optimizer(lr=0.1, momentum=0.9, weight_decay=1e-4, decay_on="all")
# 0.01 in the first 400 iterations, a tenth after 32k and 48k; the paper trains to 64k, 164 epochs.
on_cifar = partial(cifar10, epochs=164, batch_size=128, optimizer=SGD, schedule=WARM_STEPS, augment=PAD_CROP_FLIP)
# A tenth after 30 and 60 epochs, no warm-up; the length is not given: 90, as in the authors' code.
on_imagenet = partial(
    imagenet,
    epochs=90,
    batch_size=256,
    bn_group_size=IMAGES_A_GPU,
    optimizer=SGD,
    schedule=Schedule(kind="step", boundaries=(30, 60), factor=0.1),
    augment=Augment(crop="scale_jitter", jitter=(256, 480), flip=True, color="pca"),  # 1512.03385, sec. 3.4
)

RECIPES = {
    "preresnet110_cifar10": on_cifar("preresnet110_cifar"),
    "preresnet164_cifar10": on_cifar("preresnet164_cifar"),
    "preresnet50_imagenet": on_imagenet("preresnet50"),  # smaller than the paper's
    "preresnet152_imagenet": on_imagenet("preresnet152"),
    "preresnet200_imagenet": on_imagenet("preresnet200"),
}
