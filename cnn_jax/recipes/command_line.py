"""From a command line and JSON files to a recipe, without importing JAX."""

import argparse
import contextlib
import difflib
import io
import os
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro

from cnn_jax import storage
from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from cnn_jax.recipes.configuration import override, read_json
from cnn_jax.recipes.recipe import check, check_range
from cnn_jax.tables import aligned

PROG = "train.py"
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Command:
    """Trains a network: recipe -> data -> model -> state -> loop.

    Every value of a recipe is an option, e.g. `train.py --epochs 5 --optimizer.lr 0.02`."""

    config: Annotated[Recipe, tyro.conf.arg(name="")]
    recipe: str = DEFAULT_RECIPE
    """Where the values come from that are not given; --list-recipes shows them."""
    from_json: Annotated[Path | None, tyro.conf.arg(name="config", metavar="FILE.json")] = None
    """A JSON file of values, such as the config.json that a run leaves; the command line wins."""
    list_recipes: Flag = False
    """Show the recipes and stop."""
    out: str | None = None
    """Folder for everything the run leaves, also on gs://; runs/RECIPE-DATE if not given."""
    resume: Literal["no", "yes", "auto"] = "no"
    """Go on with the run in --out, from its newest good checkpoint; auto: or begin one if none is there, so that a
    scheduler can start the same command again and again. --resume alone is yes."""
    allow_change: Flag = False
    """Go on although the configuration is another one; it becomes the run's."""
    save_every: int = 0
    """Steps between checkpoints within an epoch; each epoch ends with one anyway."""
    download: Flag = False
    """Fetch and prepare the data set if it is not there."""
    engine: Literal["auto", "device", "host"] = "auto"
    """Where images are kept: on the devices (small sets of one image size), or read and decoded by the host as
    they are needed."""
    threads: int = 0
    """Host threads that decode; as many as there are cores if 0."""
    workers: int = 0
    """Processes that decode in place of the threads, for hosts of many cores."""
    fsdp: Flag = False
    """Split large parameters, with their optimiser state and averages, over the devices."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes; on SLURM, Cloud TPU and Kubernetes they find each other."""
    processes: int | None = None
    """With --coordinator: how many processes there are."""
    process: int | None = None
    """With --coordinator: which of them this is, from 0."""
    no_compilation_cache: Flag = False
    """Compile everything anew; else programs are kept for the next start in JAX_COMPILATION_CACHE_DIR, or in
    ~/.cache/cnn_jax."""
    profile: str | None = None
    """START:STOP, steps counted from 0, of which out/profile gets a trace for TensorBoard and Perfetto."""
    wandb: str | None = None
    """Project of Weights & Biases that gets the numbers too."""

    def __post_init__(self):
        check_range("save-every", self.save_every, 0)
        self.trace_steps()
        check_range("threads", self.threads, 0, 1024)
        check_range("workers", self.workers, 0, 1024)

    def trace_steps(self) -> tuple[int, int] | None:
        """`profile` as two numbers."""
        if self.profile is None:
            return None
        start, _, stop = self.profile.partition(":")
        fits = start.isdecimal() and stop.isdecimal() and int(start) < int(stop)
        check(fits, "profile", self.profile, "START:STOP, two steps, the smaller first")
        return int(start), int(stop)


def parse(argv: Sequence[str]) -> Command:
    """Reads the options; values come from the recipe, then --config, then the command line.

    With `--resume` and no `--recipe` or `--config` they come from the run's own config.json, with
    `--resume auto` if it is there.

    Raises:
      UserError: an unknown recipe, option or value, or a JSON file that cannot serve.
      SystemExit: after `--help`.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--recipe", "--config", "--out"):
        first.add_argument(option)
    first.add_argument("--resume", nargs="?", const="yes", default="no")
    try:
        given, _ = first.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name} {error.message}") from None
    for option, value in vars(given).items():
        if value == "":
            raise UserError(f"--{option} is empty; leave it out or give it a value")
    check(given.resume in ("no", "yes", "auto"), "--resume", given.resume, "yes, no or auto")
    if given.resume != "no" and given.out is None:
        raise UserError("--resume needs --out DIR, the folder of the run to go on with")
    file = given.config
    if given.resume != "no" and given.recipe is None and file is None:
        file = storage.place(given.out) / "config.json"
        if not file.is_file() and given.resume == "auto":
            file = None
        elif not file.is_file():
            raise UserError(f"--resume found no run in {given.out}: {file} does not exist")
    values = {} if file is None else read_json(file)
    named = values.pop("recipe", DEFAULT_RECIPE)
    values.pop("data", None)  # what a run wrote down of its images, for its own resume
    recipe = str(named) if given.recipe is None else given.recipe
    if recipe not in RECIPES:
        raise UserError(did_you_mean("recipe", recipe, RECIPES))
    try:
        config = override(RECIPES[recipe], values)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return _tyro(_with_value(argv, "--resume", "yes"), Command(config=config, recipe=recipe))


def _with_value(argv: Sequence[str], option: str, value: str) -> list[str]:
    """`argv` in which `option`, where no value follows it, has this one: tyro knows no optional values."""
    words = list(argv)
    for place in reversed([i for i, word in enumerate(words) if word == option]):
        if place + 1 == len(words) or words[place + 1].startswith("-"):
            words.insert(place + 1, value)
    return words


def recipe_table() -> str:
    """A line for each recipe."""
    head = ("recipe", "model", "dataset", "epochs", "batch", "lr", "schedule", "loss")
    rows = [
        (name, r.model, r.dataset, r.epochs, r.batch_size, r.optimizer.lr, r.schedule.kind, r.loss)
        for name, r in RECIPES.items()
    ]
    return aligned([head, *rows])


def _tyro(argv: Sequence[str], default: Command) -> Command:
    """tyro's parser, with its framed error messages turned into one line."""

    def parsed() -> Command:
        return tyro.cli(Command, args=list(argv), default=default, prog=PROG)

    if {"-h", "--help"} & set(argv):
        return parsed()
    # A wide terminal that knows UTF-8, whatever this one is: a frame of known shape, no broken lines.
    frame = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with _columns("10000"), contextlib.redirect_stdout(frame), contextlib.redirect_stderr(frame):
            return parsed()
    except SystemExit:
        frame.seek(0)
        raise UserError(_one_line(frame.read())) from None


@contextlib.contextmanager
def _columns(columns: str) -> Generator[None]:
    """Inside, the terminal is said to be so wide."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = columns
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _one_line(frame: str) -> str:
    """The sentence inside the frame that tyro draws, and the option that was probably meant."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│ ") for line in frame.splitlines()]
    body = [line for line in lines if line and not line.startswith("╭")]
    rule = next((i for i, line in enumerate(body) if line.startswith(("─", "╰"))), len(body))
    text = " ".join(body[:rule]).replace("Unrecognized options:", "unknown option")
    text = re.sub(r"^Error parsing (config\.\w+)?[: ]*", "", text)
    if not text.startswith("unknown option"):
        return f"{text.rstrip('.')}; --help shows all options"
    known = _option_names(Command)
    near = []
    for option in re.findall(r"--[\w.-]+", text.replace("_", "-")):
        same_end = [name for name in known if name.endswith("." + option[2:])]
        near += same_end or difflib.get_close_matches(option, known, n=1)
    return f"{text}; did you mean {', '.join(near)}?" if near else f"{text}; --help shows all options"


def _option_names(cls: Any, prefix: str = "--") -> list[str]:
    """Every option of a nest of dataclasses, as typed."""
    names = []
    for field in fields(cls):
        hint = get_type_hints(cls)[field.name]
        name = field.name.replace("_", "-")
        if is_dataclass(hint):
            names += _option_names(hint, prefix if hint is Recipe else f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{'config' if name == 'from-json' else name}")
    return names
