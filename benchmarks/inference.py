"""Inference of ten networks beside PyTorch at batch 1 and 32, each contender its own process, in turn.

    uv run python -m benchmarks.inference --torch-python PYTHON [--networks NAME ...] [--rounds 5] [--batches 1 32]
        [--contenders folded,ours,torch,fused]

"folded" has batch norm folded into the convolutions by cnn_jax.fold_batch_norm, "ours" has it as it stands; "torch" is
PyTorch eager, "fused" PyTorch's own folding and torch.compile, both in inference mode and channels_last. Every batch
is waited for. PYTHON has torch, torchvision and timm.
"""

import sys

from benchmarks.networks import NETWORKS
from benchmarks.speed import changed, finish, measured, options_parser, tables


def main(argv: list[str] | None = None) -> int:
    """Measures, writes the report; returns the exit code."""
    parser = options_parser(__doc__, "inference", "folded,ours,torch,fused")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    options = parser.parse_args(argv)
    found, made = {}, {}
    for batch in options.batches:
        jobs = {name: changed(NETWORKS[name], options, batch=batch, task="infer") for name in options.networks}
        one = measured({f"{name}, {job.size} px": job for name, job in jobs.items()}, options)
        made |= {f"Batch {batch}{heading and ': '}{heading}": rows for heading, rows in tables(one, "network").items()}
        found |= {f"{label}, batch {batch}": results for label, results in one.items()}
    return finish(options, f"Inference, {options.dtype or 'float32'}", found, made)


if __name__ == "__main__":
    sys.exit(main())
