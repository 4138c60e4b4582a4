"""MnasNet: Tan et al. 2018 (1807.11626), sec. 5, and the authors' code (tensorflow/tpu, official/mnasnet).

Length, label smoothing, RMSProp's epsilon and the average's decay are the code's. Batch norm's groups are a TPU core's
images: 4,096 on 32.
"""

from functools import partial

from cnn_jax.recipes.datasets import digits, imagenet
from cnn_jax.recipes.inception import DISTORTED_CROP
from cnn_jax.recipes.recipe import Optimizer, Schedule

RMSPROP = Optimizer(kind="rmsprop", lr=0.256, decay=0.9, epsilon=1e-3, momentum=0.9, weight_decay=1e-5, ema=0.9999)

tan = partial(
    imagenet,
    epochs=350,
    batch_size=4096,
    bn_group_size=128,
    bn_momentum=0.99,
    dropout=0.2,
    label_smoothing=0.1,
    optimizer=RMSPROP,
    schedule=Schedule(kind="exponential", factor=0.97, every=2.4, warmup=5),
    augment=DISTORTED_CROP,
)

RECIPES = {
    "semnasnet_100_imagenet": tan("semnasnet_100"),
    "mnasnet1_0_imagenet": tan("mnasnet1_0"),
    "mnasnet1_0_mnist": digits("mnasnet1_0"),
}
