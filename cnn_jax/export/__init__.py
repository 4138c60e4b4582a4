"""A network with its weights as files, for programs that know nothing of this package: docs/export.md."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import flax.errors
import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save

import cnn_jax
from cnn_jax.atomic import write_json
from cnn_jax.compilation import jit_once
from cnn_jax.errors import UserError, did_you_mean, first_line, of_system
from cnn_jax.models import create_model, model_info
from cnn_jax.models.fold import fold_batch_norm
from cnn_jax.preprocessing import Preprocess, preprocess
from cnn_jax.weights import export_state_dict

Format = Literal["stablehlo", "onnx", "safetensors"]
PLATFORMS = ("cpu", "cuda", "tpu")
OPSET = 21  # of ONNX; 2024
# In an environment of its own: jax2onnx takes no orbax-checkpoint as new as ours.
CONVERTER = ("jax2onnx==0.17.1", "onnxruntime==1.32.0", "safetensors>=0.5")
CHECKED = (1, 3)  # images in a batch whose logits are compared


def export_network(
    name: str,
    model: nn.Module,
    variables: Mapping,
    folder: str | Path,
    format: Format = "stablehlo",
    *,
    seen: Preprocess | None = None,
    classes: Sequence[str] | None = None,
) -> str:
    """Writes a network, `create_model(name, ...)` and its variables, into `folder` for inference; says what in a line.

    `seen` is what it sees of an image, by the card of `name` if None, `classes` what its classes are called: both
    stand in network.json beside the files.

    - "stablehlo": network.stablehlo, a program that jax.export reads on a CPU, GPU or TPU, and weights.safetensors
      beside it, since programs expire and weights do not. It takes the weights, by name, and images (B, H, W, C)
      float32, any number of them, and gives logits (B, num_classes) float32.
    - "onnx": network.onnx, weights inside, images -> logits likewise. uv makes the environment that converts it. It is
      written only if onnxruntime's logits are within 1e-4 of ours, in shares of the largest.
    - "safetensors": model.safetensors, a state dict in PyTorch's layout, see export_state_dict.

    The first two compute in float32 and have batch norms folded into the convolutions before them.

    Raises:
      UserError: another format, variables that are not the model's, a folder that cannot be written; no layout of
        PyTorch for the network; for ONNX no uv, no environment, or a network that is not converted rightly.
    """
    if format not in get_args(Format):
        raise UserError(did_you_mean("format", str(format), get_args(Format)))
    seen, folder, model = seen or preprocess(name), Path(folder), model.clone(dtype=jnp.float32)
    image = (*seen.size, len(seen.mean))
    used = lambda values: {key: value for key, value in values.items() if not key.startswith("aux")}  # noqa: E731
    variables = {kind: used(values) for kind, values in variables.items()}
    try:
        images = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        logits = jax.eval_shape(partial(model.apply, train=False), variables, images)
    except flax.errors.FlaxError as error:
        raise UserError(f"these are not variables of this {name}: {first_line(error)}") from error
    facts = {"network": name, "format": format, "channels": len(seen.mean), **asdict(seen)}
    facts |= {"num_classes": logits.shape[-1], "classes": None if classes is None else list(classes)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as made:
            parts = Path(made)
            if format == "stablehlo":
                said = _stablehlo(model, variables, image, parts)
            elif format == "onnx":
                said = _onnx(name, model, variables, seen, parts)
            else:
                state_dict = export_state_dict(name, variables, **_options(name, model))
                (parts / "model.safetensors").write_bytes(save(state_dict, {"format": "pt"}))
                said = f"the layout of {model_info(name).references[0]}"
            files = sorted(path.name for path in parts.iterdir())
            write_json(parts / "network.json", facts)
            for file in (*files, "network.json"):  # whole, or not at all
                (parts / file).replace(folder / file)
    except OSError as error:
        raise of_system(f"cannot write to {folder}", error) from error
    return f"{folder}: {', '.join(files)}, network.json; {said}"


def _options(name: str, model: nn.Module) -> dict[str, Any]:
    """What create_model was told, but for types and norms, which do not matter here."""
    default = create_model(name)
    fields = set(type(model).__dataclass_fields__) - {"parent", "name", "norm", "dtype"}
    return {key: getattr(model, key) for key in sorted(fields) if getattr(model, key) != getattr(default, key)}


def _weights(variables: Mapping) -> dict[str, np.ndarray]:
    return {path: np.asarray(value) for path, value in flatten_dict(variables, sep="/").items()}


def _stablehlo(model: nn.Module, variables: Mapping, image: tuple[int, ...], folder: Path) -> str:
    """Writes the program and its weights."""
    model, variables = fold_batch_norm(model, variables)
    weights = _weights(variables)

    def network(weights: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        logits: Any = model.apply(unflatten_dict(weights, sep="/"), images, train=False)
        return logits

    (batch,) = jax.export.symbolic_shape("batch")
    like = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in weights.items()}
    images = jax.ShapeDtypeStruct((batch, *image), jnp.float32)
    program = jax.export.export(jax.jit(network), platforms=PLATFORMS)(like, images)
    (folder / "network.stablehlo").write_bytes(program.serialize())
    (folder / "weights.safetensors").write_bytes(save(weights))
    return f"batches of any size on {', '.join(PLATFORMS)}, by jax {jax.__version__}"


def _onnx(name: str, model: nn.Module, variables: Mapping, seen: Preprocess, folder: Path) -> str:
    """Has export/to_onnx.py convert and check it in another environment, and writes what it made."""
    uv = shutil.which("uv")
    if uv is None:
        raise UserError("ONNX is made by jax2onnx in an environment of uv's, and there is no uv: pip install uv")
    options, image = _options(name, model), (*seen.size, len(seen.mean))
    try:
        job = json.dumps({"name": name, "options": options, "image": image, "opset": OPSET, "batches": CHECKED})
    except TypeError as error:
        raise UserError(f"{name} with {', '.join(options)} is not converted to ONNX: {error}") from error
    images = (np.random.default_rng(0).random((max(CHECKED), *image)) - seen.mean) / seen.std
    logits = jit_once(partial(model.apply, train=False))(variables, images.astype(np.float32))
    with tempfile.TemporaryDirectory() as place:
        there = Path(place)
        (there / "cnn_jax").symlink_to(Path(cnn_jax.__file__).parent)  # this package, without what is installed beside
        (there / "job.json").write_text(job)
        (there / "variables.safetensors").write_bytes(save(_weights(variables)))
        check = {"images": images.astype(np.float32), "logits": np.asarray(logits)}
        (there / "check.safetensors").write_bytes(save(check))
        packages = [f"--with={package}" for package in CONVERTER]
        python = ["--python", sys.executable, "python", "-P", str(there / "cnn_jax/export/to_onnx.py")]
        done = subprocess.run(
            [uv, "run", "--quiet", "--isolated", "--no-project", *packages, *python, str(folder / "network.onnx")],
            cwd=there,
            env=os.environ | {"PYTHONPATH": place, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        told = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise UserError(f"no ONNX of {name}: {told[-1]}")
    return done.stdout.strip().splitlines()[-1]
