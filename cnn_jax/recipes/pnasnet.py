"""PNASNet-5: Liu et al. 2017 (1712.00559), app. A, and the authors' code (slim's pnasnet.py).

It trains as NASNet's large network does, but for the weight decay.
"""

from dataclasses import replace

from cnn_jax.recipes.datasets import digits
from cnn_jax.recipes.nasnet import RMSPROP_LARGE, zoph

RECIPES = {
    "pnasnet5large_imagenet": zoph(
        "pnasnet5large", bn_group_size=20, optimizer=replace(RMSPROP_LARGE, weight_decay=4e-5)
    ),
    "pnasnet5large_mnist": digits("pnasnet5large"),
}
