"""Trains a classic convolutional network: recipe -> data -> model -> state -> loop.

    uv run train.py                     LeNet-5 on 5,000 real digits, half a minute on a laptop
    uv run train.py --list-recipes      what else there is
    uv run train.py --recipe lenet5_1998 --epochs 5 --optimizer.lr 0.01
    uv run train.py --resume --out DIR  go on after Ctrl-C, SIGTERM or a crash

A run leaves config.json, metrics.jsonl, TensorBoard events, checkpoints, pictures and
summary.json in --out. Exit codes: 0 done; 2 a mistake, told in one line; 130 after Ctrl-C and
75 after SIGTERM, both after saving if training has begun (a second one does not wait for that);
1 if nobody reads the output any more.
"""

import os
import shlex
import sys
import time
import traceback
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path

from cnn_jax.errors import UserError
from cnn_jax.recipes.command_line import Command, parse, recipe_table
from cnn_jax.recipes.configuration import to_json
from cnn_jax.training.signals import Interrupted, StopRequest, catch_signals

START = time.perf_counter()


def run(command: Command, stop: StopRequest) -> None:
    """Trains as `command` says; everything it leaves is in the run's folder."""
    # Imported here, not above: --help and a mistyped option need no JAX.
    import jax

    from cnn_jax.compilation import keep_programs
    from cnn_jax.data import engines, open_run, order, views
    from cnn_jax.evaluation import summarize
    from cnn_jax.models import model_info
    from cnn_jax.training import checkpoint, distributed, logs, loop, run_folder, sharding
    from cnn_jax.training.compiled import Compiled, create_state, per_seed
    from cnn_jax.training.hardware import Hardware
    from cnn_jax.training.program import Program, image_size, start_from
    from cnn_jax.training.report import write_report
    from cnn_jax.training.state import count, digest, scalar
    from cnn_jax.training.trace import Trace

    # Recipe: what to train, and on which devices of which processes.
    config = command.config
    keep_programs(not command.no_compilation_cache)
    distributed.start(command.coordinator, command.processes, command.process)
    distributed.quiet_others()
    first = distributed.first()
    mesh = sharding.data_mesh(config.batch_size, config.optimizer.accumulate)
    everywhere, split = sharding.replicated(mesh), sharding.split(mesh)

    # Data: a set that is small enough lives on every device, another is decoded as it is needed.
    sets = open_run(
        config.dataset,
        config.train_split,
        config.test_split,
        config.validation,
        config.data_dir,
        download=command.download,
    )
    tested = "validation" if config.validation else "test"  # after each epoch
    timeline = order.Timeline(len(sets["train"]), config.batch_size, config.epochs)
    if timeline.steps_per_epoch == 0:
        raise UserError(f"--batch-size {config.batch_size} is more than the {timeline.size} training images")
    where = distributed.once(lambda: engines.choose_engine(command.engine, *sets.values()))
    if config.seeds > 1 and where == "host":
        raise UserError("--seeds trains side by side on sets that live on the device; start them one by one instead")
    size, info = image_size(config)[0], model_info(config.model)
    central = partial(views.middle, size=size, crop=info.crop, interpolation=info.interpolation)
    random = views.training_view(asdict(config.augment), size) or central
    loaded = {
        kind: engines.open_engine(
            where,
            dataset,
            random if kind == "train" else central,
            size,
            everywhere=everywhere,
            split=per_seed(mesh) if kind == "train" and config.seeds > 1 else split,
            seed=config.seed,
            threads=command.threads,
            processes=command.workers,
            bad_images=config.bad_images,
        )
        for kind, dataset in sets.items()
    }

    # Model and state, made on the devices.
    if config.start is not None and command.resume == "no" and not (Path(config.start) / "checkpoints").is_dir():
        raise UserError(f"--start {config.start} is no folder of a run: it has no checkpoints")
    train_set = sets["train"]
    program = Program(config, timeline, len(train_set.classes), train_set.shape[2], loaded["train"].crops)
    state = create_state(program, sharding.state_shardings(mesh, create_state(program), command.fsdp))
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    named = f"{command.recipe}-{datetime.now():%Y-%m-%d-%H%M%S}"
    out = command.out or Path(distributed.once(lambda: str(run_folder.new_folder(Path("runs"), named))))
    stop.advice = f"; go on with: uv run train.py --resume --out {shlex.quote(str(out))}"
    written = to_json(command.recipe, config) | {"data": {kind: s.fingerprint for kind, s in sets.items()}}
    if distributed.once(lambda: written) != written:
        raise UserError("this process was given another recipe, options or data than the first one")
    with (
        run_folder.open_run_folder(out, written, resume=command.resume, allow_change=command.allow_change) as (
            resumed,
            changes,
        ),
        checkpoint.Checkpoints(out / "checkpoints") as checkpoints,
    ):
        # A resumed run starts from its newest good checkpoint, a new one maybe from another run's layers.
        taken = []
        if resumed and (newest := checkpoints.latest_step()) is not None:
            state = checkpoints.restore(state, newest)
        elif config.start is not None:
            others = checkpoint.load_variables(config.start, "latest")["params"]
            state, taken = start_from(state, distributed.same(others), config.start_layers)
        timeline = timeline.going_on(scalar(state.step), scalar(state.seen))
        if scalar(state.step) > timeline.steps:
            raise UserError(f"the run in {out} is past epoch {config.epochs} already, at step {scalar(state.step)}")
        if distributed.once((out / "summary.json").exists) and scalar(state.step) == timeline.steps:
            print(f"the run in {out} is complete; nothing to do")
            return
        if first:
            print(
                f"{config.model}: {count(state.params) // config.seeds:,} parameters, on {device}\n"
                f"{config.dataset}: {', '.join(f'{len(s):,} {kind}' for kind, s in sets.items())} images, "
                f"{program.classes} classes, on the {where}\n"
                + (f"from {config.start}: {', '.join(taken)}\n" if taken else "")
                + f"{out}: from step {scalar(state.step)} to {timeline.steps}",
                flush=True,
            )

        # Steps: pure functions, compiled once and ahead, so that compiling is timed apart.
        sizes = {kind: len(s) for kind, s in sets.items()}
        compiled = Compiled(program, mesh, state, loaded, sizes, tested=tested, shift=timeline.shift)
        predictions = {}

        def test(state, heed):
            predictions[tested] = compiled.predict(state, tested, heed)
            return summarize(predictions[tested])

        # Loop. From here on a signal waits for the end of a step.
        if first:
            run_folder.write_changes(out, written, changes)
        stop.gentle = True
        opened = []
        distributed.once(
            lambda: opened.append(
                logs.RunLog(
                    out,
                    timeline,
                    scalar(state.step),
                    tested,
                    hardware=Hardware(program.flops * config.seeds),
                    wandb=command.wandb,
                    config=written,
                )
            )
        )
        with (
            opened[0] if first else logs.NoLog(out, tested) as log,
            Trace(out / "profile", command.trace_steps() if first else None) as trace,
        ):
            state, images_per_s = loop.train(
                state,
                timeline=timeline,
                rows=compiled.rows,
                batches=loaded["train"].batches,
                waited=lambda: loaded["train"].waited,
                step=compiled.step,
                settle=compiled.settle,
                test=test,
                checkpoints=checkpoints,
                log=log,
                stop=stop,
                trace=trace,
                save_every=command.save_every,
                max_skipped=config.max_skipped,
            )

        # What the run found.
        if "test" not in predictions:
            predictions["test"] = compiled.predict(state, "test", partial(loop.heed, stop, scalar(state.step)))
        summary = {
            "recipe": command.recipe,
            "model": config.model,
            "dataset": config.dataset,
            "seed": config.seed,
            "steps": scalar(state.step),
            "params": count(state.params) // config.seeds,
            **summarize(predictions["test"]),
            "params_digest": digest(sharding.whole(state.variables | {"ema": state.ema})),
            "engine": where,
            # Of this process alone, if the run was resumed.
            "skipped_images": {kind: len(engine.skipped) for kind, engine in loaded.items()},
            "data_wait_s": round(loaded["train"].waited, 2),
            "wall_s": round(time.perf_counter() - START, 2),
            "compile_s": round(compiled.seconds, 2),
            "images_per_s": images_per_s and round(images_per_s, 1),
            "device": device,
            "versions": run_folder.versions(),
        }
        if first:
            records = logs.read_metrics(out / "metrics.jsonl")
            print(write_report(out, summary, records, predictions["test"], sets["test"]))


def unraisable(problem) -> None:
    """Drops what tensorstore's threads say after a failed read or write; the failure itself is told."""
    if str(problem.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(problem)


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    sys.unraisablehook = unraisable
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    stop = catch_signals()
    try:
        command = parse(argv)
        if command.list_recipes:
            print(recipe_table())
        else:
            run(command, stop)
        sys.stdout.flush()
        return 0
    except UserError as error:
        told, code = error, 2
    except Interrupted as interrupted:
        told, code = interrupted, interrupted.exit_code
    except BrokenPipeError:
        told, code = "nobody reads this output any more" + stop.advice, 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        told, code = "the device has too little memory; a smaller --batch-size or --engine host needs less", 2
    except OSError as error:  # a full disk, most often
        told, code = f"cannot read or write {error.filename or 'the output'}: {error.strerror}{stop.advice}", 2
    print(f"train.py: {told}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    try:
        exit_code = main(sys.argv[1:])
    except Exception:  # a bug, or another process is gone; Python's own exit would wait for that one
        traceback.print_exc()
        exit_code = 1
    if "jax" in sys.modules:
        from cnn_jax.training.distributed import leave

        leave(exit_code)
    os._exit(exit_code)  # all is written; threads of libraries that complain at the end are not heard
