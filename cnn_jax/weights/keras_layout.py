"""What Keras's networks have and ours have not, and the other way: idle biases, batch norms without a scale."""

from fnmatch import fnmatchcase

import numpy as np

BIASED = "keras.ResNet*"  # convolutions before batch norms have biases, "conv1_conv/bias" before "conv1_bn"
SCALELESS = "keras.Inception*"  # batch norms have no gamma


def from_keras(arrays: dict[str, np.ndarray], reference: str) -> dict[str, np.ndarray]:
    """Biases before a batch norm, which subtracts them again, go into its mean; gammas that are not there are ones."""
    arrays = dict(arrays)
    for key in list(arrays):
        if fnmatchcase(reference, BIASED) and key.endswith("_conv/bias"):
            mean = key.replace("_conv/bias", "_bn/moving_mean")
            if mean in arrays and arrays[mean].shape == arrays[key].shape:
                arrays[mean] = arrays[mean] - arrays.pop(key)
        if fnmatchcase(reference, SCALELESS) and key.endswith("/moving_variance"):
            arrays.setdefault(key.replace("moving_variance", "gamma"), np.ones_like(arrays[key]))
    return arrays


def to_keras(arrays: dict[str, np.ndarray], reference: str) -> dict[str, np.ndarray]:
    """The way back, to the same function: biases of 0, gammas in the convolutions before the batch norms."""
    arrays = dict(arrays)
    for key in list(arrays):
        if fnmatchcase(reference, BIASED) and key.endswith("_bn/moving_mean"):
            arrays[key.replace("_bn/moving_mean", "_conv/bias")] = np.zeros_like(arrays[key])
        if fnmatchcase(reference, SCALELESS) and key.endswith("/gamma"):
            norm, gamma = key.removesuffix("/gamma"), arrays.pop(key)
            conv = norm.removesuffix("_bn").replace("batch_normalization", "conv2d")
            for scaled in (f"{conv}/kernel", f"{norm}/moving_mean"):
                arrays[scaled] = arrays[scaled] * gamma
    return arrays
