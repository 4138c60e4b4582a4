"""The data sets of the recipes, each with what is said of it in every paper."""

from functools import partial

from cnn_jax.recipes.recipe import Augment, Optimizer, Recipe, Schedule

# ILSVRC-2012: 1,281,167 training images; papers test on the 50,000 validation images. Nobody trains on it without an
# accelerator: products in bfloat16, parameters and sums in float32, against which no paper speaks.
imagenet = partial(Recipe, dataset="imagenet2012", train_split="train", test_split="validation", dtype="bfloat16")
# Of 256 on 8 GPUs, over which batch norm takes its statistics: Goyal 2017 (1706.02677), sec. 2.3 and 5.1. The papers of
# then do not say; a device that takes them of its own images waits for no other (docs/scale.md).
IMAGES_A_GPU = 32
# The shorter side 256 pixels and a random crop, flipped, with shifted colours (Krizhevsky 2012, sec. 4.1). Papers cut
# the image to its central 256x256 first; here a crop may lie anywhere along the longer side.
CROP_OF_256 = Augment(crop="scale_jitter", jitter=(256, 256), flip=True, color="pca")
# 8% to 100% of the area, ratio 3/4 to 4/3 (Szegedy 2014, sec. 6), flipped.
ANY_CROP = Augment(crop="random_resized", flip=True)

# 50,000 training images: 390 steps of 128 an epoch, 781 of 64.
cifar10 = partial(Recipe, dataset="cifar10")
PAD_CROP_FLIP = Augment(pad=4, flip=True)  # He 2015, sec. 4.2

# LeCun 1998, sec. III.A distorts digits by "horizontal and vertical translations, scaling, squeezing,
# horizontal shearing" without amounts; these keep a 28x28 digit legible.
DISTORTIONS = Augment(rotate=10, translate=2, scale=0.12, shear=0.1)
SGD = Optimizer(lr=0.05, momentum=0.9, weight_decay=5e-4)
# Without batch norm SGD is slow to leave its start: AlexNet and ZFNet guessed after three epochs of it.
ADAMW = Optimizer(kind="adamw", lr=3e-4, weight_decay=0.01)


def digits(model: str, optimizer: Optimizer = SGD) -> Recipe:
    """A network's form for 28 pixels on the 4,000 digits of mnist_5k: of no paper, to see it learn on a laptop."""
    return Recipe(
        model,
        stem="cifar",
        image_size=28,
        epochs=5,
        optimizer=optimizer,
        schedule=Schedule(kind="cosine", warmup=1),
        augment=DISTORTIONS,
    )
