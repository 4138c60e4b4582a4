import dataclasses
import json
import os
import subprocess
import sys

import pytest

from cnn_jax import RECIPES, UserError
from cnn_jax.recipes import Schedule
from cnn_jax.recipes.command_line import parse, recipe_table
from cnn_jax.recipes.configuration import to_json


def test_no_options_give_the_default_recipe():
    command = parse([])
    assert command.recipe == "lenet5_modern"
    assert command.config == RECIPES["lenet5_modern"]
    assert (command.out, command.resume, command.download, command.list_recipes) == (None, "no", False, False)


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
        ("--recipe", "--recipe expected one argument"),
        ("--epoch 3", "unknown option --epoch, 3; did you mean --epochs?"),
        ("--lr 3", "unknown option --lr, 3; did you mean --optimizer.lr?"),
        ("--optimizer.lrr 3", "unknown option --optimizer.lrr, 3; did you mean --optimizer.lr?"),
        ("--optimizer.lr fast", "could not convert string to float: 'fast'"),
        ("--optimizer.lr -1", "optimizer.lr must be above 0, not -1.0"),
        ("--epochs 0", "epochs must be at least 1 and at most 1,000,000, not 0"),
        ("--epochs 2.5", "2.5"),
        ("--epochs", "Missing value for argument '--epochs'"),
        ("--loss mse", "invalid choice 'mse' for argument '--loss'. Expected one of ('cross_entropy', 'bce', 'map')"),
        ("extra", "unknown option extra"),
        ("--config nowhere.json", "cannot read nowhere.json: No such file or directory"),
        ("--resume", "--resume needs --out DIR, the folder of the run to go on with"),
        ("--recipe=", "--recipe is empty; leave it out or give it a value"),
        ("--config=", "--config is empty"),
        ("--out=", "--out is empty"),
        ("--resume --out nowhere", "--resume found no run in nowhere"),
        ("--resume atuo --out nowhere", "--resume must be yes, no or auto, not atuo"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(UserError) as error:
        parse(options.split())
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epochz": 3}', "unknown value 'epochz'; did you mean epochs?"),
        ('{"optimizer": {"lrr": 3}}', "unknown value 'optimizer.lrr'; did you mean optimizer.lr"),
        ('{"optimizer": {"lr": "fast"}}', 'optimizer.lr must be a number, not "fast"'),
        ('{"optimizer": {"nesterov": 1}}', "optimizer.nesterov must be true or false, not 1"),
        ('{"optimizer": 3}', "optimizer must be an object, not 3"),
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


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "30"}, {"PYTHONIOENCODING": "utf-8"}]
)
def test_one_line_whatever_the_terminal(environment):
    parse = "from cnn_jax.recipes.command_line import parse"
    code = f"{parse}\ntry: parse(['--lr', 'x' * 60])\nexcept Exception as error: print(error)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=True
    ).stdout
    assert out == f"unknown option --lr, {'x' * 60}; did you mean --optimizer.lr?\n"


def test_help_shows_every_value(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--recipe", "--config FILE.json", "--optimizer.weight-decay", "--augment.shear", "--resume"):
        assert option in text


def test_the_recipe_table_has_a_line_each():
    lines = recipe_table().splitlines()
    assert len(lines) == 1 + len(RECIPES)
    assert {line.split()[0] for line in lines[1:]} == set(RECIPES)
