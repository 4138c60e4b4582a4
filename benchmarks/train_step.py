"""A training step of ten networks beside plain Flax and PyTorch, each its own process, in turn.

    uv run python -m benchmarks.train_step --torch-python PYTHON [--networks NAME ...] [--rounds 5]
        [--contenders ours,flax,torch,compile]

Forward, mean cross entropy (auxiliary heads' times 0.3), backward, SGD with momentum, on one synthetic batch that
stays on the device; --resident: on batches drawn from 50,000 uint8 images that lie there. "ours" is cnn_jax as
`import cnn_jax` sets it up, "jax" that without oneDNN, "flax" the same network by XLA's own convolutions and flags,
"torch" PyTorch eager and "compile" torch.compile, both channels_last; "graphs" adds CUDA graphs. PYTHON has torch,
torchvision and timm. --profile adds our ten longest kernels.
"""

import sys

from benchmarks.contender import Result, Rows, shown
from benchmarks.networks import NETWORKS
from benchmarks.speed import changed, finish, measured, options_parser, tables


def mfu(results: dict[str, Result]) -> dict[str, str | None]:
    """Each contender's share of the device's peak, in percent, where that is known to our side."""
    told = next((r.facts for r in results.values() if r.facts.get("peak_flops")), None)
    if told is None:
        return {}
    share = told["flops"] / told["peak_flops"]
    return {name: shown(r.images_per_s and 100 * r.images_per_s * share, ".1f") for name, r in results.items()}


def kernel_rows(results: dict[str, Result]) -> Rows:
    """Our longest kernels."""
    rows: Rows = [("kernel", "ms a step", "%")]
    for result in results.values():
        for name, milliseconds, share in result.facts.get("kernels", ()):
            rows.append((f"`{name}`", f"{milliseconds:.3f}", f"{100 * share:.1f}"))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Measures, writes the report; returns the exit code."""
    parser = options_parser(__doc__, "train_step", "ours,flax,torch,compile")
    parser.add_argument("--batch", type=int, help="instead of each network's own")
    parser.add_argument("--resident", action="store_true", help="draw batches from a set on the device")
    parser.add_argument("--profile", action="store_true", help="add the ten longest kernels of ours")
    options = parser.parse_args(argv)
    task = "resident" if options.resident else "train"
    jobs = {}
    for name in options.networks:
        job = changed(NETWORKS[name], options, batch=options.batch, task=task, profile=options.profile)
        jobs[f"{name}, batch {job.batch}, {job.size} px"] = job
    found = measured(jobs, options)
    made = tables(found, "network")
    shares = {label: mfu(results) for label, results in found.items()}
    if any(shares.values()):
        first = next(iter(found.values()))
        made["Model FLOPs utilisation, %"] = [
            ("network", *first),
            *((label, *(share.get(name) for name in first)) for label, share in shares.items()),
        ]
    if options.profile:
        made |= {f"Longest kernels: {label}": kernel_rows(results) for label, results in found.items()}
    return finish(options, f"A training step, {options.dtype or 'float32'}", found, made)


if __name__ == "__main__":
    sys.exit(main())
