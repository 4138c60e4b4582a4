"""MobileNets: Howard et al. 2017 (1704.04861), sec. 3.2, and Sandler et al. 2018 (1801.04381), sec. 6.1.

Neither paper gives a length, RMSProp's epsilon or the decay of an average of parameters: 300 epochs are
ours, epsilon 1 and 0.9999 those of the authors' TF-slim. Asynchronous steps become synchronous; the 96 images, and
batch norm's statistics, are those of one of the paper's workers.
"""

from dataclasses import replace

from cnn_jax.recipes.datasets import ANY_CROP, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

# Version 2, sec. 6.1.
RMSPROP = Optimizer(kind="rmsprop", lr=0.045, decay=0.9, epsilon=1.0, momentum=0.9, weight_decay=4e-5, ema=0.9999)
EVERY_EPOCH = Schedule(kind="exponential", factor=0.98, every=1)

RECIPES = {
    # Version 1 gives RMSProp, "very little or no weight decay" on depthwise filters, neither label smoothing nor side
    # heads, and crops that are not too small (the 30% are ours); rate, batch and decay are version 2's.
    "mobilenet_100_imagenet": imagenet(
        "mobilenet_100",
        epochs=300,
        batch_size=96,
        optimizer=replace(RMSPROP, decay_on="kernels_but_depthwise"),
        schedule=EVERY_EPOCH,
        augment=replace(ANY_CROP, crop_scale=(0.3, 1.0)),
    ),
    "mobilenetv2_100_imagenet": imagenet(
        "mobilenetv2_100",
        epochs=300,
        batch_size=96,
        optimizer=RMSPROP,
        schedule=EVERY_EPOCH,
        augment=ANY_CROP,
    ),
    "mobilenet_100_mnist": digits("mobilenet_100"),
    "mobilenetv2_100_mnist": digits("mobilenetv2_100"),
}
