"""From a command line and JSON files to a recipe, without importing JAX."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import tyro

from cnn_jax import storage
from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from cnn_jax.recipes.checks import check, check_range
from cnn_jax.recipes.configuration import override, read_json
from cnn_jax.recipes.recipe import ModelOptions
from cnn_jax.tables import aligned

PROG = "train.py"
HELP = {"-h", "--help"}
NEGATIVE = re.compile(r"-(\.?\d|inf$|nan$)")  # a number, no option
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
        if self.allow_change and self.resume == "no":
            raise UserError("--allow-change is about the run that --resume goes on with; give both or none")

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
    if not HELP & set(argv):
        return _command(argv)
    try:
        shown = _command([word for word in argv if word not in HELP])
    except UserError:
        shown = Command(RECIPES[DEFAULT_RECIPE])
    return tyro.cli(Command, args=["--help"], default=shown, prog=PROG, registry=_registry())


def _registry() -> tyro.constructors.ConstructorRegistry:
    """How --help shows a JSON object, of which tyro knows nothing."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def json_object(kind: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if kind.type is not ModelOptions:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="JSON",
            instance_from_str=lambda words: ModelOptions(json.loads(words[0])),
            is_instance=lambda value: isinstance(value, ModelOptions),
            str_from_instance=lambda value: [json.dumps(value)],
        )

    return registry


def recipe_table() -> str:
    """A line for each recipe."""
    head = ("recipe", "model", "dataset", "epochs", "batch", "lr", "schedule", "loss")
    rows = [
        (name, r.model, r.dataset, r.epochs, r.batch_size, r.optimizer.lr, r.schedule.kind, r.loss)
        for name, r in RECIPES.items()
    ]
    return aligned([head, *rows])


def _command(argv: Sequence[str]) -> Command:
    """What a command line without --help asks for."""
    given = _read(argv)
    own = {name: given.pop(name) for name in {field.name for field in fields(Command)} & given.keys()}
    resume, file = own.get("resume", "no"), own.get("from_json")
    out: Any = own.get("out")
    if resume != "no" and out is None:
        raise UserError("--resume needs --out DIR, the folder of the run to go on with")
    if resume != "no" and "recipe" not in own and file is None:
        file = storage.place(out) / "config.json"
        with storage.telling(f"cannot read {file}"):
            there = file.is_file()
        if not there and resume == "auto":
            file = None
        elif not there:
            raise UserError(f"--resume found no run in {out}: {file} does not exist")
    values = {} if file is None else read_json(file)
    named = values.pop("recipe", DEFAULT_RECIPE)
    values.pop("data", None)  # what a run wrote down of its images, for its own resume
    recipe = own.pop("recipe", str(named))
    if recipe not in RECIPES:
        raise UserError(did_you_mean("recipe", recipe, RECIPES))
    try:
        config = override(RECIPES[recipe], values)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return Command(config=override(config, given), recipe=recipe, **own)


class _Option(NamedTuple):
    """Where a value belongs, and its type; for a switch what it is turned to."""

    path: tuple[str, ...]
    hint: Any
    turns: bool = True


def _options(cls: Any, *path: str) -> dict[str, _Option]:
    """Every option of a nest of dataclasses, as typed."""
    found = {}
    for name, hint in get_type_hints(cls).items():
        if is_dataclass(hint):
            found |= _options(hint, *(() if hint is Recipe else (*path, name)))
            continue
        *parts, last = (part.replace("_", "-") for part in (*path, name))
        last = "config" if name == "from_json" else last
        found["--" + ".".join((*parts, last))] = _Option((*path, name), hint)
        if hint is bool and cls is not Command:
            found["--" + ".".join((*parts, f"no-{last}"))] = _Option((*path, name), hint, turns=False)
    return found


def _read(argv: Sequence[str]) -> dict[str, Any]:
    """The values that are given, nested as in the dataclasses.

    Raises:
      UserError: an unknown option, a word that belongs to none, a value that is missing or of the wrong kind.
    """
    known = _options(Command)
    groups: list[tuple[str, list[str]]] = [("", [])]
    for word in argv:
        if word.startswith("-") and not NEGATIVE.match(word):
            name, equals, value = word.partition("=")
            groups.append((name, [value] if equals else []))
        else:
            groups[-1][1].append(word)
    if loose := groups.pop(0)[1]:
        raise UserError(f"{loose[0]!r} is no option{_meant([loose[0].partition('=')[0]], known)}")
    unknown = [name for name, _ in groups if name.replace("_", "-") not in known]
    if unknown:
        raise UserError(f"unknown option {', '.join(unknown)}{_meant(unknown, known)}")
    found: dict[str, Any] = {}
    for name, words in groups:
        option = known[name.replace("_", "-")]
        part = found
        for key in option.path[:-1]:
            part = part.setdefault(key, {})
        part[option.path[-1]] = _value(name, option, words, known)
    return found


def _value(name: str, option: _Option, words: list[str], known: dict[str, _Option]) -> Any:
    """The value of one option from the words behind it."""
    if "" in words:
        raise UserError(f"{name} is empty; leave it out or give it a value")
    if option.hint is bool:
        if words:
            off = [f"; {other} is its opposite" for other, no in known.items() if no == option._replace(turns=False)]
            raise UserError(f"{name} takes no value, {words[0]!r} is left over{''.join(off)}")
        return option.turns
    if name == "--resume" and not words:
        return "yes"
    if not words and get_args(option.hint)[-1:] != (Ellipsis,):
        raise UserError(f"{name} needs a value, {_kind(option.hint)}")
    try:
        return _converted(option.hint, words)
    except ValueError:
        raise UserError(f"{name} must be {_kind(option.hint)}, not {' '.join(words)!r}") from None


def _converted(hint: Any, words: list[str]) -> Any:
    """Words as the type that a field has; a ValueError if they are not."""
    if get_origin(hint) is tuple:
        item, *rest = get_args(hint)
        if rest != [Ellipsis] and len(words) != 1 + len(rest):
            raise ValueError
        return [_converted(item, [word]) for word in words]
    (word,) = words
    if get_origin(hint) in (UnionType, Union):  # int | None, Literal[...] | None
        return None if word == "None" else _converted(get_args(hint)[0], words)
    if get_origin(hint) is Literal:
        return get_args(hint)[get_args(hint).index(word)]
    if hint is ModelOptions:
        value = json.loads(word)  # its error is a ValueError
        if not isinstance(value, dict):
            raise ValueError
        return value
    value = hint(word)
    if hint is float and not math.isfinite(value):
        raise ValueError
    return value


def _kind(hint: Any) -> str:
    """What a value must be."""
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        number = "two " if arguments[-1] is not Ellipsis else ""
        return f"{number}{'names' if arguments[0] is str else 'numbers'}, with spaces between them"
    if get_origin(hint) in (UnionType, Union):
        return _kind(arguments[0]) + ("" if arguments[0] in (str, Path) else " or None")
    if get_origin(hint) is Literal:
        return f"one of {', '.join(arguments)}"
    return {
        int: "a whole number",
        float: "a finite number",
        str: "one word or quoted text",
        Path: "one path",
        ModelOptions: """one quoted JSON object such as '{"se_reduction": 16}'""",
    }[hint]


def _meant(words: Iterable[str], known: Iterable[str]) -> str:
    """Which options these words probably stand for."""
    near = list(dict.fromkeys(f"--{option}" for word in words for option in _near(word, [o[2:] for o in known])))
    return f"; did you mean {', '.join(near)}?" if near else "; --help shows all options"


def _near(word: str, known: list[str]) -> list[str]:
    word = word.lstrip("-").replace("_", "-")
    group, _, last = word.rpartition(".")
    ends = (f".no-{last}",) if group.startswith("no-") else (f".{last}",)
    if "-" in last:  # learning-rate is lr
        ends += (f".{''.join(part[:1] for part in last.split('-'))}",)
    if found := [option for option in known if option.endswith(ends)]:
        return found
    if f"{word}.kind" in known:
        return [f"{word}.kind"]
    if any(option.startswith(f"{word}.") for option in known):
        return [f"{word}.NAME"]
    longer = [option for option in known if option.startswith(word)] if len(word) > 2 else []
    return longer[:3] or difflib.get_close_matches(word, known, n=1, cutoff=0.7)
