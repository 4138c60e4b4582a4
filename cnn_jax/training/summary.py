"""What a run starts from, in lines, and what it found, in figures: summary.json."""

from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from cnn_jax.data.loaders import Loader
from cnn_jax.sharding import whole
from cnn_jax.training.program import Program
from cnn_jax.training.run_folder import versions
from cnn_jax.training.state import TrainState, count, digest, scalar


def opening(out: str | Path, program: Program, state: TrainState, loaders: dict[str, Loader], taken: list[str]) -> str:
    """What is trained, on what, from where; `taken` are the layers that were started from."""
    config = program.config
    images = ", ".join(f"{len(loader):,} {kind}" for kind, loader in loaders.items())
    return (
        f"{config.model}: {count(state.params) // config.seeds:,} parameters, on {device()}\n"
        f"{config.dataset}: {images} images, {program.classes} classes, on the {loaders['train'].engine.place}\n"
        + (f"from {config.start}: {_share(taken, state)}\n" if taken else "")
        + (f"frozen: {len(program.frozen)} layers before {config.freeze_until}\n" if program.frozen else "")
        + f"{out}: from step {scalar(state.step)} to {program.timeline.steps}"
    )


def _share(taken: list[str], state: TrainState) -> str:
    """Which layers were taken, by those that were not if these are fewer."""
    left = sorted({"/".join(path[:-1]) for path in flatten_dict(state.params)} - set(taken))
    if len(left) < len(taken):
        return f"all layers but {', '.join(left)}" if left else "all layers"
    return ", ".join(taken)


def summarize_run(
    recipe: str,
    program: Program,
    state: TrainState,
    loaders: dict[str, Loader],
    found: dict[str, Any],
    measured: dict[str, float | None],
) -> dict[str, Any]:
    """The content of summary.json; all processes call it.

    `found` is what evaluation.summarize says of the test images. What was `measured` is of this process
    alone, as are skipped images and waiting, if the run was resumed.
    """
    config = program.config
    return {
        "recipe": recipe,
        "model": config.model,
        "dataset": config.dataset,
        "seed": config.seed,
        "steps": scalar(state.step),
        "params": count(state.params) // config.seeds,
        **found,
        "params_digest": digest(whole(state.variables | {"ema": state.ema})),
        "engine": loaders["train"].engine.place,
        "skipped_images": {kind: len(loader.engine.skipped) for kind, loader in loaders.items()},
        "data_wait_s": round(loaders["train"].engine.waited, 2),
        **{name: value and round(value, 1 if name == "images_per_s" else 2) for name, value in measured.items()},
        "device": device(),
        "versions": versions(),
    }


def device() -> str:
    """All devices, in words."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
