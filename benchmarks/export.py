"""Exports a network of each family in each format, tries what came out, and writes the table of docs/export.md.

    uv run python -m benchmarks.export [--families NAME ...]

It is the family's smallest; weights are drawn. Logits are compared with those of model.apply, as a share of the
largest: StableHLO's by the file itself, read again, ONNX's by onnxruntime. Networks that have a layer over a map of
fixed size see images of their card's size, the others of 96 pixels at most. With --families the table is only printed.
"""

import argparse
import re
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.export
import numpy as np
from safetensors.numpy import load_file

from benchmarks.networks import ROOT
from cnn_jax.compilation import jit_once
from cnn_jax.errors import UserError
from cnn_jax.export import export_network
from cnn_jax.models import FAMILIES, create_model
from cnn_jax.models.card import ModelInfo
from cnn_jax.preprocessing import preprocess

TABLE = re.compile(r"(?<=<!-- by benchmarks/export.py -->\n).*?(?=<!-- end -->)", re.DOTALL)
HEAD = "| family | network | StableHLO | ONNX | safetensors |\n| --- | --- | ---: | --- | --- |\n"


def row(family: str, info: ModelInfo) -> str:
    """A line of the table."""
    height, _, channels = info.input_size
    model = create_model(info.name)
    size = height if hasattr(model, "dense") else min(height, 96)
    image, seen = (size, size, channels), preprocess(info, image_size=size)
    images = np.random.default_rng(0).standard_normal((2, *image), np.float32)
    variables = jit_once(partial(model.init, train=False))(jax.random.key(0), images)
    expected = jit_once(partial(model.apply, train=False))(variables, images)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        export = partial(export_network, info.name, model, variables, place, seen=seen)
        export("stablehlo")
        network = jax.export.deserialize(bytearray((place / "network.stablehlo").read_bytes())).call
        found = jit_once(network)(load_file(place / "weights.safetensors"), images)
        stablehlo = f"{np.abs(found - expected).max() / np.abs(expected).max():.0e}"
        try:
            onnx = export("onnx").rpartition("within ")[2].removesuffix(" of the largest")
        except UserError as error:
            onnx = str(error)
        try:
            layout = export("safetensors").rpartition("the layout of ")[2].partition(".")[0]
        except UserError:
            layout = "no layout elsewhere"
    return f"| {family} | `{info.name}` | {stablehlo} | {onnx} | {layout} |\n"


def main(argv: list[str] | None = None) -> int:
    """Writes the table, or prints a part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", help="files of cnn_jax/models")
    options = parser.parse_args(argv)
    rows = []
    for family in FAMILIES:
        name = family.__name__.rpartition(".")[2]
        if options.families is None or name in options.families:
            rows.append(row(name, min(family.VARIANTS, key=lambda info: info.macs)))
            print(rows[-1], end="", flush=True)
    if options.families is None:
        path = ROOT / "docs" / "export.md"
        path.write_text(TABLE.sub(lambda _: HEAD + "".join(rows), path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
