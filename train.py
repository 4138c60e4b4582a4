"""Trains a classic convolutional network: recipe -> data -> model -> state -> loop.

    uv run train.py                     LeNet-5 on 5,000 real digits, half a minute on a laptop
    uv run train.py --list-recipes      what else there is
    uv run train.py --recipe lenet5_1998 --epochs 5 --optimizer.lr 0.01
    uv run train.py --resume --out DIR  go on after Ctrl-C, SIGTERM or a crash

A run leaves config.json, metrics.jsonl, TensorBoard events, checkpoints, pictures and
summary.json in --out. Exit codes: 0 done; 2 a mistake, told in one line; 75 where the same command
may succeed later: storage, the network or another process failed, also told in one line, or SIGTERM
came; 130 after Ctrl-C. Training that had begun is saved first (a second signal does not wait for
that). 1 if nobody reads the output any more, or after a bug.
"""

import os
import shlex
import sys
import time
import traceback
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before the rest is imported: the process may start anew
    from cnn_jax.platform import ask_for_huge_pages

    ask_for_huge_pages()

from cnn_jax.errors import BadData, UserError, first_line, of_system
from cnn_jax.recipes.command_line import Command, parse, recipe_table
from cnn_jax.recipes.configuration import to_json
from cnn_jax.training.signals import Interrupted, Stopped, StopRequest, catch_signals


def run(command: Command, stop: StopRequest) -> None:
    """Trains as `command` says; everything it leaves is in the run's folder."""
    began = time.perf_counter()
    # Imported here, not above: --help and a mistyped option need no JAX.
    from cnn_jax import distributed
    from cnn_jax.compilation import keep_programs, timed
    from cnn_jax.data.loaders import open_loaders
    from cnn_jax.data.order import Timeline
    from cnn_jax.evaluation import evaluate
    from cnn_jax.platform import DETERMINISTIC, add_flags
    from cnn_jax.sharding import data_mesh
    from cnn_jax.training.compiled import (
        abstract_state,
        compile_settle,
        compile_tests,
        compile_train,
        create_state,
    )
    from cnn_jax.training.program import Program, evaluation_view
    from cnn_jax.training.report import report_run
    from cnn_jax.training.run_folder import RunFolder, new_folder
    from cnn_jax.training.start import check_start, read_start, start_from
    from cnn_jax.training.state import scalar
    from cnn_jax.training.summary import opening, summarize_run
    from cnn_jax.training.watch import Watch

    # Recipe: what to train, and on which devices of which processes.
    config = command.config
    otherwise = add_flags(DETERMINISTIC) if config.deterministic else []
    keep_programs(not command.no_compilation_cache)
    distributed.start(command.coordinator, command.processes, command.process)
    distributed.quiet_others()
    if otherwise:
        print(f"XLA_FLAGS keeps {' '.join(otherwise)}: on a GPU --deterministic is not to be had so", flush=True)
    mesh = data_mesh(config.batch_size, config.optimizer.accumulate)

    # Data: a set that is small enough lives on every device, another is decoded as it is needed.
    loaders = open_loaders(
        config,
        mesh,
        **evaluation_view(config),
        engine=command.engine,
        threads=command.threads,
        workers=command.workers,
        download=command.download,
    )
    train, tested = loaders["train"], "validation" if config.validation else "test"  # tested after each epoch
    timeline = Timeline(len(train), config.batch_size, config.epochs)
    idle = [f"--{name}" for name in ("threads", "workers") if getattr(command, name)]
    if idle and train.engine.place == "device":
        print(f"{' and '.join(idle)} decode nothing: the images lie on the devices", flush=True)
    traced = command.trace_steps()
    if traced and command.resume == "no" and traced[0] >= timeline.steps:
        raise UserError(f"--profile {command.profile}: the run ends with step {timeline.steps - 1}, counted from 0")
    if config.start is not None and command.resume == "no":
        check_start(config.start)

    # Model and state, by shapes and places alone: a resumed run needs no first values.
    program = Program(config, timeline, train.classes, train.channels, train.engine.crops)
    described = abstract_state(program, mesh, command.fsdp)

    out = command.out or new_folder(Path("runs"), f"{command.recipe}-{datetime.now():%Y-%m-%d-%H%M%S}")
    stop.advice = f"; go on with: uv run train.py --resume --out {shlex.quote(str(out))}"
    data = {kind: loader.dataset.fingerprint for kind, loader in loaders.items()}
    written = to_json(command.recipe, config) | {"data": data}
    with RunFolder(out, written, resume=command.resume, allow_change=command.allow_change) as folder:
        # A resumed run starts from its newest good checkpoint, a new one maybe from another run's layers.
        seconds, taken = {}, []
        state = folder.restore(described, partial(timed, seconds, "init", create_state, program, described))
        if config.start is not None and scalar(state.step) == 0:
            others = distributed.same(read_start(config.start, train.channels))
            state, taken = start_from(state, others, config.start_layers)
        timeline = timeline.going_on(scalar(state.step), scalar(state.seen))
        if scalar(state.step) > timeline.steps:
            raise UserError(f"the run in {out} is past epoch {config.epochs} already, at step {scalar(state.step)}")
        if folder.is_complete() and scalar(state.step) == timeline.steps:
            print(f"the run in {out} is complete; nothing to do")
            return
        program = replace(program, timeline=timeline)
        print(opening(out, program, state, loaders, taken), flush=True)

        # Steps: pure functions, compiled once and ahead, so that compiling is timed apart.
        step = timed(seconds, "train", compile_train, program, state, train)
        settle = timed(seconds, "settle", compile_settle, program, state, train)
        testing = {kind: loaders[kind] for kind in (tested, "test")}
        tests = timed(seconds, "tests", compile_tests, program, state, testing)
        seconds = {name: took for name, took in seconds.items() if took > 0.005}  # settle may be nothing
        print("compiled in seconds: " + ", ".join(f"{name} {took:.1f}" for name, took in seconds.items()), flush=True)

        # Loop. From here on a signal waits for the end of a step.
        stop.gentle = True
        folder.begin(program, state, tested, wandb=command.wandb, traced=traced)
        folder.describe(train.dataset)
        compiled = {f"{name}_s": round(took, 2) for name, took in seconds.items()}
        folder.log.write("compiled", step=scalar(state.step), epoch=timeline.epoch(scalar(state.step)), **compiled)
        watch, records = Watch(folder, timeline, stop, state, train, config.max_skipped), {}

        def summarize(kind: str) -> dict[str, Any]:
            return program.task.summarize(records[kind], loaders[kind].dataset)

        def test(kind: str) -> dict[str, Any]:
            batches = watch.heed(loaders[kind].every_image())
            records[kind] = evaluate(partial(tests[kind], state.tested), batches)
            return summarize(kind)

        try:
            if timeline.ends_epoch(watch.position):  # a run that was stopped in its test
                watch.found(folder.tested(watch.position) or test(tested))
            for epoch, offset in timeline.left(scalar(state.seen)):
                for batch in train.epoch(epoch, offset):
                    state, metrics = step(state, batch.arrays)
                    saving = timeline.is_due(watch.position + 1, command.save_every)
                    watch(state, metrics, batch, saving)
                    if saving:
                        folder.save(state)
                loaders[tested].begin(None)
                state = settle(state, epoch)
                folder.save(state)
                if epoch + 1 < config.epochs:  # made while the test runs
                    train.begin(epoch + 1)
                watch.found(test(tested))
        except (Stopped, BadData) as why:
            watch.leave(state, why)
            raise
        finally:
            for loader in loaders.values():
                loader.close()
        watch.finish()

        # What the run found.
        found = summarize("test") if "test" in records else test("test")
        measured = {
            "wall_s": time.perf_counter() - began,
            "compile_s": sum(seconds.values()),
            "images_per_s": watch.images_per_s,
        }
        summary = summarize_run(command.recipe, program, state, loaders, found, measured)
        folder.finish(
            summary, partial(report_run, program.task, records=records["test"], test_set=loaders["test"].dataset)
        )


def lost_peer(error: RuntimeError) -> bool:
    """Whether JAX says that it cannot reach the other processes of this run."""
    distributed = sys.modules.get("cnn_jax.distributed")
    return distributed is not None and distributed.started() and distributed.LOST.search(str(error)) is not None


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
        told, code = error, error.exit_code
    except Interrupted as interrupted:
        told, code = interrupted, interrupted.exit_code
    except BrokenPipeError:
        told, code = "nobody reads this output any more" + stop.advice, 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            told, code = "the device has too little memory; a smaller --batch-size or --engine host needs less", 2
        elif lost_peer(error):
            told, code = f"another process is gone or late ({first_line(error)}){stop.advice}", 75
        else:
            raise
    except OSError as error:
        found = of_system(f"cannot read or write {error.filename or 'the output'}", error)
        told, code = f"{found}{stop.advice}", found.exit_code
    print(f"train.py: {told}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    try:
        exit_code = main(sys.argv[1:])
    except Exception:  # a bug, or another process is gone; Python's own exit would wait for that one
        traceback.print_exc()
        exit_code = 1
    if "jax" in sys.modules:
        from cnn_jax.distributed import leave

        leave(exit_code)
    os._exit(exit_code)  # all is written; threads of libraries that complain at the end are not heard
