"""ShuffleNets: Zhang et al. 2017 (1707.01083), sec. 4, and Ma et al. 2018 (1807.11164), which trains as it does.

Batch norm's groups are half of the 256 images a GPU, so that 8 devices hold whole ones. "Slightly less aggressive
scale augmentation" has no figures; crops and label smoothing are those of the authors' later code, whose colours are
left out.
"""

from functools import partial

from cnn_jax.recipes.datasets import ANY_CROP, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

zhang = partial(
    imagenet,
    epochs=240,  # 300,000 steps
    batch_size=1024,  # on 4 GPUs
    bn_group_size=128,
    label_smoothing=0.1,
    optimizer=Optimizer(lr=0.5, momentum=0.9, weight_decay=4e-5),
    schedule=Schedule(kind="polynomial", power=1.0),
    augment=ANY_CROP,
)

RECIPES = {
    "shufflenet_v1_g3_imagenet": zhang("shufflenet_v1_g3"),
    "shufflenet_v2_x1_0_imagenet": zhang("shufflenet_v2_x1_0"),
    "shufflenet_v1_g3_mnist": digits("shufflenet_v1_g3"),
    "shufflenet_v2_x1_0_mnist": digits("shufflenet_v2_x1_0"),
}
