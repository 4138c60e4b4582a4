"""docs/imagenet.md: its commands can be given, its figures are the cards'."""

import re
import shlex
from pathlib import Path

from benchmarks.ledger.runs import RUNS
from cnn_jax.cli import _parser
from cnn_jax.models import model_info
from cnn_jax.models.card import Accuracy
from cnn_jax.recipes import RECIPES
from cnn_jax.recipes.command_line import parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/imagenet.md").read_text()
# Options of `cnn-jax evaluate` by what a figure is of; one crop for all others.
PROTOCOLS = {
    "ten crops": "--protocol ten_crop",
    "single net": "--protocol ten_crop",
    "dense": "--protocol dense",
    "dense, scale jitter": "--protocol dense --resize 384",  # 1409.1556, sec. 4.1: Q = (256 + 512) / 2
    "320 pixels": "--image-size 320 --resize 320",
}
# Where the first figure of the card is another recipe's.
FIGURES = {
    "resnet34_imagenet": "ten crops, shortcut B",
    "resnet50_one_hour": "ImageNet in 1 hour, single crop",
    **{f"resnet50_{procedure}": f"resnet50.{procedure}_in1k" for procedure in ("a1", "a2", "a3")},
    "seresnet50_imagenet": None,  # of its paper is legacy_seresnet50
}


def figure(name: str) -> Accuracy | None:
    """What a recipe is expected to reach, if anything is known."""
    known = model_info(RECIPES[name].model).accuracies
    wanted = FIGURES.get(name, known[0].of if known else None)
    return next((accuracy for accuracy in known if accuracy.of == wanted), None)


def row(name: str) -> str:
    found = figure(name)
    if found is None:
        return f"| `{name}` | - | - | | | |"
    top1, top5 = ("-" if share is None else f"{share:g}" for share in (found.top1, found.top5))
    options = PROTOCOLS.get(re.sub(", shortcut [AB]$", "", found.of), "--protocol center")
    return f"| `{name}` | {top1} | {top5} | {found.of} | {found.source} | `{options}` |"


def table() -> str:
    names = [name for name, recipe in RECIPES.items() if recipe.dataset == "imagenet2012"]
    head = ["| recipe | top-1 | top-5 | of | source | protocol |", "| --- | ---: | ---: | --- | --- | --- |"]
    return "\n".join([*head, *map(row, names)])


def test_every_recipe_has_its_row():
    assert f"\n\n{table()}\n\n" in PAGE, f"the table must be\n{table()}"


def commands(page: str) -> list[list[str]]:
    """The words behind `uv run`, but for pytest's, in blocks and in the text; names for those to be filled in."""
    lines = re.findall(r"^uv run .*$|`uv run (?!pytest)[^`]*`", page.replace("\\\n", ""), re.MULTILINE)
    fill = {"NAME": "resnet18_imagenet", "MODEL": "resnet50", "N": "256", "GB": "80"}
    split = (shlex.split(re.sub("--extra \\w+", "", line.strip("`")), comments=True)[2:] for line in lines)
    return [[fill.get(word, word) for word in words] for words in split]


def test_its_commands_can_be_given():
    found = commands(PAGE)
    assert len(found) >= 10
    for program, *options in found:
        assert program in ("train.py", "cnn-jax")
        (parse if program == "train.py" else _parser().parse_args)(options)


def test_every_recipe_that_a_page_names_is_there():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert set(re.findall(r"--recipe ([a-z]\w*)", page.read_text())) <= {*RECIPES, *RUNS}, page
