"""Converts a network to ONNX and checks it: `python -P to_onnx.py FILE`, in a folder that export/__init__.py prepared.

It runs in an environment that has jax2onnx and onnxruntime and, of what this package needs, JAX and Flax alone: by its
path, for the package that it stands in needs more.
"""

import json
import logging
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime  # ty: ignore[import-not-found]
from flax.traverse_util import unflatten_dict
from jax2onnx import to_onnx  # ty: ignore[import-not-found]
from safetensors.numpy import load_file

from cnn_jax.layers import lowering, windows
from cnn_jax.layers.geometry import Geometry
from cnn_jax.models import create_model
from cnn_jax.models.fold import fold_batch_norm

TOLERANCE = 1e-4  # of the largest logit


def main(path: str) -> str:
    """Writes the file if what it computes is right; what to say of it."""
    job = json.loads(Path("job.json").read_text())
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in job["options"].items()}
    variables = unflatten_dict(load_file("variables.safetensors"), sep="/")
    model, variables = fold_batch_norm(create_model(job["name"], **options), variables)
    weights = jax.tree.map(np.asarray, variables)
    vars(windows).update(_max=_max, _sum=_sum)
    with lowering("xla"):
        made = to_onnx(
            lambda images: model.apply(weights, images, train=False),
            [("batch", *job["image"])],
            model_name=job["name"],
            opset=job["opset"],
            input_names=["images"],
            output_names=["logits"],
        )
    data = made.SerializeToString()
    check = load_file("check.safetensors")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    largest = np.abs(check["logits"]).max()
    for batch in job["batches"]:
        (logits,) = session.run(None, {"images": check["images"][:batch]})
        difference = np.abs(logits - check["logits"][:batch]).max() / largest
        if not difference <= TOLERANCE:
            raise ValueError(f"its logits are off by {difference:.1e} of the largest, more than {TOLERANCE:.0e}")
    Path(path).write_bytes(data)
    return f"opset {job['opset']}, batches of any size, logits within {difference:.1e} of the largest"


# jax2onnx knows Flax's pools, by keyword, and makes a pool of its own padding of one with padding.
def _max(x: jax.Array, *, geometry: Geometry) -> jax.Array:
    padded = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)), constant_values=-jnp.inf)
    return nn.max_pool(padded, window_shape=geometry.window, strides=geometry.stride, padding="VALID")


def _sum(x: jax.Array, *, geometry: Geometry) -> jax.Array:
    padded = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    mean = nn.avg_pool(padded, window_shape=geometry.window, strides=geometry.stride, padding="VALID")
    return mean * np.prod(geometry.window)


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # onnx_ir's, of shapes that it does not know
    try:
        print(main(sys.argv[1]))
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
