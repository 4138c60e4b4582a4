"""LeNet-5, and LeNet-1, on digits (LeCun 1998), sized for the 4,000 training images of mnist_5k and a laptop."""

from cnn_jax.recipes.datasets import DISTORTIONS
from cnn_jax.recipes.recipe import Optimizer, Recipe, Schedule

RECIPES = {
    # Network, input range and 30 passes of the paper of 1989; neither its second-order steps (p. 402) nor its loss.
    "lenet1_1989": Recipe(
        model="lenet1",
        epochs=30,
        batch_size=32,
        optimizer=Optimizer(lr=0.01, momentum=0.9),
        schedule=Schedule(kind="cosine", warmup=2),
    ),
    "lenet5_modern": Recipe(
        model="lenet5_modern",
        epochs=20,
        batch_size=64,
        optimizer=Optimizer(lr=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(kind="cosine", warmup=1),
        augment=DISTORTIONS,
    ),
    # The network, loss, input range, distortions and 20 passes of the paper. Its optimiser,
    # stochastic diagonal Levenberg-Marquardt one pattern at a time (app. C), is replaced by SGD.
    "lenet5_1998": Recipe(
        model="lenet5",
        loss="map",
        epochs=20,
        batch_size=32,
        optimizer=Optimizer(lr=0.004, momentum=0.9),
        schedule=Schedule(kind="cosine", warmup=2),
        augment=DISTORTIONS,
    ),
}
