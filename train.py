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
    import jax.numpy as jnp

    from cnn_jax.data import augment, engines, open_dataset, order, views
    from cnn_jax.evaluation import evaluate, summarize
    from cnn_jax.models import create_model, lenet, model_info
    from cnn_jax.training import checkpoint, logs, loop, optimizer, run_folder, sharding, step
    from cnn_jax.training.state import TrainState, count, digest

    # Recipe: what to train, and on which devices.
    config, info = command.config, model_info(command.config.model)
    options = asdict(config.augment)
    mesh = sharding.data_mesh(config.batch_size)
    everywhere, sharded = sharding.replicated(mesh), sharding.split(mesh)

    # Data: a set that is small enough lives on every device, another is decoded as it is needed.
    train_set, test_set = (
        open_dataset(config.dataset, split, config.data_dir, download=command.download)
        for split in (config.train_split, config.test_split)
    )
    sets = {"train": train_set, "test": test_set}
    tested = "test"  # after each epoch
    if config.validation:
        tested, (kept, held_out) = "validation", order.held_out(len(train_set), config.validation)
        if not len(held_out):
            raise UserError(f"--validation {config.validation} holds out none of {len(train_set)} images")
        sets["validation"] = train_set.select(held_out, "validation")
        sets["train"] = train_set = train_set.select(kept, config.train_split)
    classes, channels = len(train_set.classes), train_set.shape[2]
    timeline = order.Timeline(len(train_set), config.batch_size, config.epochs)
    if timeline.steps_per_epoch == 0:
        raise UserError(f"--batch-size {config.batch_size} is more than the {len(train_set)} training images")
    size = info.input_size[:2] if config.image_size is None else (config.image_size, config.image_size)
    where = engines.choose_engine(command.engine, *sets.values())
    central = partial(views.middle, size=size[0], crop=info.crop, interpolation=info.interpolation)
    random = views.training_view(options, size[0]) or central
    loaded = {
        kind: engines.open_engine(
            where,
            dataset,
            random if kind == "train" else central,
            size[0],
            everywhere=everywhere,
            split=sharded,
            seed=config.seed,
            threads=command.threads,
            processes=command.workers,
            bad_images=config.bad_images,
        )
        for kind, dataset in sets.items()
    }

    # Model and state, made on the devices.
    stem = {} if config.stem is None else {"stem": config.stem}
    model = create_model(config.model, num_classes=classes, dtype=jnp.dtype(config.dtype), **stem)
    preprocess = augment.make_preprocess(size, *info.normalization(channels), options, cropped=loaded["train"].crops)
    make_optimizer = partial(
        optimizer.make_optimizer, config.optimizer, config.schedule, config.epochs, timeline.steps_per_epoch
    )
    key_init, key_train = jax.random.split(jax.random.key(config.seed))

    @partial(jax.jit, out_shardings=everywhere)
    def create_state():
        variables = model.init(key_init, jnp.zeros((1, *size, channels)), train=False)
        return TrainState.create(variables, make_optimizer()[0], key_train)

    state = create_state()
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    out = command.out or run_folder.new_folder(Path("runs"), f"{command.recipe}-{datetime.now():%Y-%m-%d-%H%M%S}")
    stop.advice = f"; go on with: uv run train.py --resume --out {shlex.quote(str(out))}"
    written = to_json(command.recipe, config) | {"data": {kind: s.fingerprint for kind, s in sets.items()}}
    with (
        run_folder.open_run_folder(out, written, resume=command.resume) as go_on,
        checkpoint.Checkpoints(out / "checkpoints") as checkpoints,
    ):
        # A resumed run starts from its newest checkpoint.
        if command.resume and (newest := checkpoints.latest_step()) is not None:
            state = checkpoints.restore(state, newest)
        timeline = timeline.going_on(int(state.step), int(state.seen))
        optimise, rate = make_optimizer(timeline.shift)
        if (out / "summary.json").exists() and int(state.step) == timeline.steps:
            print(f"the run in {out} is complete; nothing to do")
            return
        print(
            f"{config.model}: {count(state.params):,} parameters, on {device}\n"
            f"{config.dataset}: {', '.join(f'{len(s):,} {kind}' for kind, s in sets.items())} images, "
            f"{classes} classes, on the {where}\n"
            f"{out}: from step {int(state.step)} to {timeline.steps}",
            flush=True,
        )

        # Steps: pure functions, compiled once and ahead, so that compiling is timed apart.
        start = time.perf_counter()
        loss = {"cross_entropy": step.cross_entropy, "map": lenet.map_loss}[config.loss]
        common = {"apply": model.apply, "loss": loss, "preprocess": preprocess, "num_classes": classes}
        train_on = partial(
            step.train_step,
            optimizer=optimise,
            label_smoothing=config.label_smoothing,
            mix=augment.make_mixing(options),
            epoch_size=len(train_set),
            **common,
        )
        test_on = partial(step.eval_step, **common)

        def gathered(data, batch):
            return jax.lax.with_sharding_constraint(loaded["train"].gather(data, batch), sharded)

        def compiled(function, kind, of, **options):
            """Ahead of time: the function of (of, data, batch) for the data of `kind`."""
            jitted = jax.jit(lambda of, data, batch: function(of, gathered(data, batch)), **options)
            engine = loaded[kind]
            program = jitted.lower(of, engine.data, engine.example(config.batch_size)).compile()
            return lambda of, batch: program(of, engine.data, batch)

        train_step = compiled(train_on, "train", state, donate_argnums=0)
        test_steps = {
            kind: compiled(test_on, kind, state.variables, out_shardings=everywhere) for kind in {tested, "test"}
        }
        compile_s = time.perf_counter() - start

        def predict(state, kind):
            rows, mask = order.evaluation_order(len(sets[kind]), config.batch_size)
            return evaluate(partial(test_steps[kind], state.variables), loaded[kind].batches(rows), rows, mask)

        # Loop. From here on a signal waits for the end of a step.
        go_on()
        stop.gentle = True
        rows = partial(order.epoch_order, config.seed, size=len(train_set), batch_size=config.batch_size)
        with logs.RunLog(out, timeline, int(state.step), tested) as log:
            state, images_per_s = loop.train(
                state,
                timeline=timeline,
                batches=lambda epoch, offset: loaded["train"].batches(rows(epoch, offset=offset), epoch),
                waited=lambda: loaded["train"].waited,
                step=train_step,
                test=lambda state: summarize(predict(state, tested)),
                rate=lambda state, t: optimizer.learning_rate(rate, state.opt_state, t),
                checkpoints=checkpoints,
                log=log,
                stop=stop,
            )

        # What the run found.
        predictions = predict(state, "test")
        found = summarize(predictions)
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            pictures = "no pictures (pip install matplotlib)"
        else:
            from cnn_jax.visualize import draw_run

            title = f"{config.model} on {config.dataset}, seed {config.seed}"
            records = logs.read_metrics(log.path)
            draw_run(out, title, records, predictions, test_set.pixels, test_set.classes)
            pictures = "curves.png, confusion.png, mistakes.png"
        summary = {
            "recipe": command.recipe,
            "model": config.model,
            "dataset": config.dataset,
            "seed": config.seed,
            "steps": int(state.step),
            "params": count(state.params),
            "test_top1": found["test_top1"],
            "test_top5": found["test_top5"],
            "test_count": found["test_count"],
            "params_digest": digest(state),
            "engine": where,
            # Of this process alone, if the run was resumed.
            "skipped_images": {kind: len(engine.skipped) for kind, engine in loaded.items()},
            "data_wait_s": round(loaded["train"].waited, 2),
            "wall_s": round(time.perf_counter() - START, 2),
            "compile_s": round(compile_s, 2),
            "images_per_s": images_per_s and round(images_per_s, 1),
            "device": device,
            "versions": run_folder.versions(),
        }
        run_folder.write_json(out / "summary.json", summary)
    wrong = found["test_count"] - int(predictions["top1"].sum())
    skipped = sum(summary["skipped_images"].values())
    speed = f", {images_per_s:,.0f} images/s" if images_per_s else ""
    print(
        f"\ntest top-1 {found['test_top1']:.2%}: {wrong} of {found['test_count']} images wrong after step "
        f"{int(state.step)}; {summary['wall_s']:.0f} s{speed}{f'; {skipped} bad images skipped' if skipped else ''}\n"
        f"{out}: {pictures}, summary.json, metrics.jsonl, tensorboard/, checkpoints/"
    )


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
    exit_code = main(sys.argv[1:])
    os._exit(exit_code)  # all is written; threads of libraries that complain at the end are not heard
