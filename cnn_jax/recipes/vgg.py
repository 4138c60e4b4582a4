"""VGG: Simonyan & Zisserman 2014 (1409.1556), sec. 3.1."""

from functools import partial

from cnn_jax.recipes.datasets import digits, imagenet
from cnn_jax.recipes.recipe import Augment, Optimizer, Schedule

# Decreased "when the validation set accuracy stopped improving", three times; here at fixed epochs.
paper = partial(
    imagenet,
    epochs=74,  # 370K iterations
    batch_size=256,
    optimizer=Optimizer(lr=0.01, momentum=0.9, weight_decay=5e-4),
    schedule=Schedule(kind="step", boundaries=(20, 40, 60), factor=0.1),
    # Multi-scale training, S in [256, 512], without first training at S = 384.
    augment=Augment(crop="scale_jitter", jitter=(256, 512), flip=True, color="pca"),
    # "The first four convolutional layers and the last three fully-connected layers" of net A, taken with
    # `--start FOLDER` of a run of vgg11. Without it all start from Glorot's rule, as the paper's later note allows.
    start_layers=("stage1/conv1", "stage2/conv1", "stage3/conv1", "stage3/conv2", "fc6", "fc7", "head"),
)

RECIPES = {f"{model}_imagenet": paper(model) for model in ("vgg11", "vgg13", "vgg16_c", "vgg16", "vgg19")} | {
    "vgg11_bn_mnist": digits("vgg11_bn"),
}
