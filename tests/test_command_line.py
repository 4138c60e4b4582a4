import dataclasses
import json
import re
from typing import get_args, get_type_hints

import pytest

from cnn_jax import RECIPES, UserError, create_model, list_models
from cnn_jax.recipes import Schedule
from cnn_jax.recipes.command_line import Command, _options, parse, recipe_table
from cnn_jax.recipes.configuration import to_json


def test_no_options_give_the_default_recipe():
    command = parse([])
    assert command.recipe == "lenet5_modern"
    assert command.config == RECIPES["lenet5_modern"]
    assert (command.out, command.resume, command.download, command.list_recipes) == (None, "no", False, False)


def test_every_stem_that_a_network_has_can_be_asked_for():
    networks = {type(create_model(name)) for name in list_models()}
    stems = {stem for network in networks for stem in get_args(get_type_hints(network).get("stem"))}
    assert {"imagenet", "cifar", "deep"} < stems
    assert {parse(["--model", "resnet18", "--stem", stem]).config.stem for stem in stems} == stems


def test_options_reach_into_the_recipe():
    config = parse(
        [
            "--recipe",
            "lenet5_1998",
            "--epochs",
            "3",
            "--optimizer.lr",
            "0.2",
            "--optimizer.nesterov",
            "--dtype",
            "bfloat16",
            "--schedule.kind",
            "step",
            "--schedule.boundaries",
            "1",
            "2.5",
        ]
    ).config
    assert (config.model, config.epochs, config.dtype) == ("lenet5", 3, "bfloat16")
    assert config.optimizer.lr == 0.2 and config.optimizer.nesterov
    assert config.schedule == dataclasses.replace(RECIPES["lenet5_1998"].schedule, kind="step", boundaries=(1.0, 2.5))


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_configuration_survives_its_json(recipe, tmp_path):
    config = dataclasses.replace(
        RECIPES[recipe], data_dir="/some where", schedule=Schedule(kind="step", boundaries=(1.5, 3.0))
    )
    (tmp_path / "c.json").write_text(json.dumps(to_json(recipe, config)))
    command = parse(["--config", str(tmp_path / "c.json")])
    assert (command.recipe, command.config) == (recipe, config)


def test_the_command_line_wins_over_json_and_json_over_the_recipe(tmp_path):
    (tmp_path / "c.json").write_text('{"epochs": 7, "seed": 5, "optimizer": {"nesterov": true}}')
    config = parse(["--config", str(tmp_path / "c.json"), "--epochs", "2"]).config
    assert (config.epochs, config.seed, config.optimizer.nesterov) == (2, 5, True)
    assert config.optimizer.lr == RECIPES["lenet5_modern"].optimizer.lr
    assert not parse(["--config", str(tmp_path / "c.json"), "--optimizer.no-nesterov"]).config.optimizer.nesterov


def test_resume_takes_the_runs_own_configuration(tmp_path):
    run = to_json("lenet5_1998", dataclasses.replace(RECIPES["lenet5_1998"], epochs=3))
    (tmp_path / "config.json").write_text(json.dumps(run))
    command = parse(["--resume", "--out", str(tmp_path)])
    assert (command.recipe, command.config.epochs, command.resume) == ("lenet5_1998", 3, "yes")


def test_resume_auto_takes_the_runs_configuration_if_there_is_a_run(tmp_path):
    auto = ["--resume", "auto", "--out", str(tmp_path)]
    assert parse([*auto, "--epochs", "5"]).config.epochs == 5
    (tmp_path / "config.json").write_text('{"recipe": "lenet5_1998", "epochs": 3, "seed": 4}')
    command = parse([*auto, "--epochs", "5"])
    assert (command.recipe, command.config.epochs, command.config.seed) == ("lenet5_1998", 5, 4)
    assert command.resume == "auto" and parse(["--out", str(tmp_path), "--resume"]).resume == "yes"


@pytest.mark.parametrize("given", ["5", "5:5", "7:5", "a:b", ":5", "-1:5"])
def test_a_profile_is_of_two_steps(given):
    assert parse(["--profile", "5:7"]).trace_steps() == (5, 7)
    with pytest.raises(UserError, match="START:STOP, two steps, the smaller first"):
        parse([f"--profile={given}"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--recipe lenet5_modrn", "unknown recipe 'lenet5_modrn'; did you mean lenet5_modern"),
        ("--recipe", "--recipe needs a value, one word or quoted text"),
        ("--epoch 3", "unknown option --epoch; did you mean --epochs?"),
        ("--lr 3", "unknown option --lr; did you mean --optimizer.lr?"),
        ("--lr=3", "unknown option --lr; did you mean --optimizer.lr?"),
        ("--optimizer.lrr 3", "unknown option --optimizer.lrr; did you mean --optimizer.lr?"),
        ("--learning-rate 3", "unknown option --learning-rate; did you mean --optimizer.lr?"),
        ("--optimzer.lr 0.1", "unknown option --optimzer.lr; did you mean --optimizer.lr?"),
        ("--optimizer adam", "unknown option --optimizer; did you mean --optimizer.kind?"),
        ("--augment flip", "unknown option --augment; did you mean --augment.NAME?"),
        ("--list", "unknown option --list; did you mean --list-recipes?"),
        ("--no-augment.flip", "unknown option --no-augment.flip; did you mean --augment.no-flip?"),
        ("--gpu 0", "unknown option --gpu; --help shows all options"),
        ("-e 5 --batchsize 3", "unknown option -e, --batchsize; did you mean --batch-size?"),
        ("-- --epochs 3", "unknown option --; --help shows all options"),
        ("epochs=5", "'epochs=5' is no option; did you mean --epochs?"),
        ("extra", "'extra' is no option; --help shows all options"),
        ("--epochs ten", "--epochs must be a whole number, not 'ten'"),
        ("--epochs 1.5", "--epochs must be a whole number, not '1.5'"),
        ("--epochs 3 4", "--epochs must be a whole number, not '3 4'"),
        ("--epochs 0", "epochs must be at least 1 and at most 1,000,000, not 0"),
        ("--epochs", "--epochs needs a value, a whole number"),
        ("--image-size big", "--image-size must be a whole number or None, not 'big'"),
        ("--optimizer.lr fast", "--optimizer.lr must be a finite number, not 'fast'"),
        ("--optimizer.lr inf", "--optimizer.lr must be a finite number, not 'inf'"),
        ("--optimizer.lr -inf", "--optimizer.lr must be a finite number, not '-inf'"),
        ("--optimizer.lr nan", "--optimizer.lr must be a finite number, not 'nan'"),
        ("--optimizer.lr -1", "optimizer.lr must be above 0, not -1.0"),
        (
            "--model-options 3",
            "--model-options must be one quoted JSON object such as '{\"se_reduction",
        ),
        (
            "--model-options {",
            "--model-options must be one quoted JSON object such as '{\"se_reduction",
        ),
        ('--model-options {"stem":"cifar"}', "model-options.stem must be given as --stem, not here"),
        ('--model-options {"num_classes":5}', "model-options.num_classes must be left to the data set, not here"),
        ("--dropout half", "--dropout must be a finite number or None, not 'half'"),
        ("--optimizer.betas 0.9", "--optimizer.betas must be two numbers, with spaces between them, not '0.9'"),
        ("--optimizer.betas a b", "--optimizer.betas must be two numbers, with spaces between them, not 'a b'"),
        ("--schedule.boundaries 3,6", "--schedule.boundaries must be numbers, with spaces between them, not '3,6'"),
        ("--loss mse", "--loss must be one of cross_entropy, bce, map, not 'mse'"),
        ("--stem CIFAR", "--stem must be one of imagenet, space_to_depth, deep, cifar or None, not 'CIFAR'"),
        ("--augment.flip no", "--augment.flip takes no value, 'no' is left over; --augment.no-flip is its opposite"),
        ("--download yes", "--download takes no value, 'yes' is left over"),
        ("--out a b", "--out must be one word or quoted text, not 'a b'"),
        ("--config nowhere.json", "cannot read nowhere.json: No such file or directory"),
        ("--resume", "--resume needs --out DIR, the folder of the run to go on with"),
        ("--recipe=", "--recipe is empty; leave it out or give it a value"),
        ("--config=", "--config is empty; leave it out or give it a value"),
        ("--wandb=", "--wandb is empty; leave it out or give it a value"),
        ("--resume --out nowhere", "--resume found no run in nowhere: nowhere/config.json does not exist"),
        ("--resume atuo --out nowhere", "--resume must be one of no, yes, auto, not 'atuo'"),
        ("--threads -1", "threads must be at least 0 and at most 1,024, not -1"),
        ("--profile 10:5", "profile must be START:STOP, two steps, the smaller first, not 10:5"),
        ("--allow-change", "--allow-change is about the run that --resume goes on with; give both or none"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(UserError) as error:
        parse(options.split())
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epochz": 3}', "unknown value 'epochz'; did you mean epochs?"),
        ('{"optimizer": {"lrr": 3}}', "unknown value 'optimizer.lrr'; did you mean optimizer.lr"),
        ('{"optimizer": {"lr": "fast"}}', 'optimizer.lr must be a number, not "fast"'),
        ('{"optimizer": {"nesterov": 1}}', "optimizer.nesterov must be true or false, not 1"),
        ('{"optimizer": 3}', "optimizer must be an object, not 3"),
        ('{"model_options": 3}', "model_options must be an object such as"),
        ('{"epochs": 2.5}', "epochs must be a whole number, not 2.5"),
        ('{"epochs": true}', "epochs must be a whole number, not true"),
        ('{"epochs": 0}', "epochs must be at least 1"),
        ('{"optimizer": {"lr": NaN}}', "optimizer.lr must be a number, not NaN"),
        ('{"epochs": NaN}', "epochs must be a whole number, not NaN"),
        ('{"epochs": 1e400}', "epochs must be a whole number, not Infinity"),
        ('{"optimizer": {"lr": 1' + 400 * "0" + "}}", "optimizer.lr must be a number, not 1000"),
        (100_000 * "[", "is not JSON"),
        ('{"data_dir": ""}', "data-dir must be a folder"),
        ('{"data_dir": "a\\u0000b"}', "data-dir must be a folder"),
        ('{"dataset": null}', "dataset must be text, not null"),
        ('{"loss": "mse"}', 'loss must be one of cross_entropy, bce, map, not "mse"'),
        ('{"schedule": {"boundaries": 3}}', "schedule.boundaries must be a list of numbers, not 3"),
        ('{"resume": true}', "unknown value 'resume'"),
        ('{"help": true}', "unknown value 'help'"),
        ('{"out": "x"}', "unknown value 'out'"),
        ('{"epochs": 3', "is not JSON"),
        ("[1]", "must hold an object"),
        ('{"recipe": "nope"}', "unknown recipe 'nope'"),
        ('{"recipe": ["a"]}', "unknown recipe"),
    ],
)
def test_mistakes_in_json_name_the_file(text, message, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        parse(["--config", str(path)])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert "recipe" in message or str(path) in str(error.value)


def test_whole_floats_pass_for_whole_numbers(tmp_path):
    (tmp_path / "c.json").write_text('{"epochs": 10.0, "seed": 1e3, "optimizer": {"lr": 1}}')
    config = parse(["--config", str(tmp_path / "c.json")]).config
    assert (config.epochs, config.seed, config.optimizer.lr) == (10, 1000, 1.0)
    assert isinstance(config.epochs, int)


def test_help_shows_every_option_that_is_read(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit) as stop:
        parse(["--epochs", "7", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    shown = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", re.sub(r"\x1b\[[0-9;]*m", "", text)))
    assert {option.replace("(", "") for option in _options(Command)} <= shown
    assert "--config FILE.json" in text and "(default: 7)" in text


def test_help_is_shown_whatever_else_is_wrong(capsys):
    with pytest.raises(SystemExit):
        parse(["--recipe", "nope", "--epochs", "-h"])
    assert "--optimizer.weight-decay" in capsys.readouterr().out


def test_the_recipe_table_has_a_line_each():
    lines = recipe_table().splitlines()
    assert len(lines) == 1 + len(RECIPES)
    assert {line.split()[0] for line in lines[1:]} == set(RECIPES)
