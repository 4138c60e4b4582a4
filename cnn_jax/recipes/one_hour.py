"""ImageNet in 1 Hour: Goyal et al. 2017 (1706.02677)."""

from cnn_jax.recipes.datasets import ANY_CROP, IMAGES_A_GPU, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

RECIPES = {
    # Sec. 5.1. The paper's crops are GoogLeNet's with the colours of fb.resnet.torch, which are left out here. Its
    # classifier starts at N(0, 0.01); here as every network's, at N(0, 1 / 2048), with 2.2 times the deviation.
    "resnet50_one_hour": imagenet(
        "resnet50",
        epochs=90,
        batch_size=8192,
        bn_group_size=IMAGES_A_GPU,  # sec. 2.3
        zero_init=True,
        # 0.1 for 256 images, in proportion to the batch (sec. 2.1); no decay on batch norm's scale and shift.
        optimizer=Optimizer(lr=0.1, lr_per=256, momentum=0.9, nesterov=True, weight_decay=1e-4),
        # Sec. 2.2: a gradual warm-up from 0.1 to 3.2.
        schedule=Schedule(kind="step", boundaries=(30, 60, 80), factor=0.1, warmup=5, warmup_from=1 / 32),
        augment=ANY_CROP,
    ),
}
