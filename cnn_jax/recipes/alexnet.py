"""AlexNet: Krizhevsky, Sutskever & Hinton 2012, sec. 4 and 5."""

from cnn_jax.recipes.datasets import ADAMW, CROP_OF_256, digits, imagenet
from cnn_jax.recipes.recipe import Optimizer, Schedule

RECIPES = {
    # "Divide the learning rate by 10 when the validation error rate stopped improving", by hand, three times; here
    # when two epochs have not lowered the mean training loss by a hundredth, which is ours. Caffe's solver of
    # bvlc_alexnet: `--schedule.kind step --schedule.boundaries 20 40 60`.
    "alexnet_imagenet": imagenet(
        "alexnet",
        epochs=90,  # "roughly 90 cycles"
        batch_size=128,
        optimizer=Optimizer(lr=0.01, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(kind="plateau", factor=0.1, patience=2, threshold=0.01),
        augment=CROP_OF_256,  # sec. 4.1; crops of 227 pixels, as the network's, for its 224
    ),
    "alexnet_mnist": digits("alexnet", ADAMW),
}
