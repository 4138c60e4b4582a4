"""NASNet-A: Zoph et al. 2017 (1707.07012), app. A.4, and the authors' code (slim's nasnet.py).

50 replicas of 32 images, for the large network 100 of 16, that step together; batch norm's groups are of 40 and 20,
so that 8 devices hold whole ones. The average of parameters is Inception v3's. Auxiliary classifier and
ScheduledDropPath are left out.
"""

from dataclasses import replace
from functools import partial

from cnn_jax.recipes.datasets import digits, imagenet
from cnn_jax.recipes.inception import DISTORTED_CROP
from cnn_jax.recipes.recipe import Optimizer, Schedule

# The rates are those of one replica times their number.
RMSPROP = Optimizer(
    kind="rmsprop", lr=0.04 * 50, decay=0.9, epsilon=1.0, momentum=0.9, weight_decay=4e-5, clip=10.0, ema=0.9999
)
RMSPROP_LARGE = replace(RMSPROP, lr=0.015 * 100, weight_decay=5e-5)
EVERY_2_4_EPOCHS = Schedule(kind="exponential", factor=0.97, every=2.4)

zoph = partial(
    imagenet,
    epochs=312,  # 250,000 steps
    batch_size=1600,
    label_smoothing=0.1,
    dropout=0.5,
    schedule=EVERY_2_4_EPOCHS,
    augment=DISTORTED_CROP,
)

RECIPES = {
    "nasnetamobile_imagenet": zoph("nasnetamobile", bn_group_size=40, optimizer=RMSPROP),
    "nasnetalarge_imagenet": zoph("nasnetalarge", bn_group_size=20, optimizer=RMSPROP_LARGE),
    "nasnetamobile_mnist": digits("nasnetamobile"),
}
