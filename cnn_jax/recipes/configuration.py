"""Configurations as JSON: what a run writes down and is compared with when it is resumed."""

import json
from dataclasses import asdict
from pathlib import Path

from cnn_jax.errors import UserError
from cnn_jax.recipes.recipe import Recipe


def read_json(path: str | Path) -> dict:
    """An object from a JSON file; a UserError says what is wrong with it."""
    try:
        values = json.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold an object such as {{'epochs': 5, 'optimizer': {{'lr': 0.02}}}}")
    return values


def to_json(recipe: str, config: Recipe) -> dict:
    """What `--config` reads back: the recipe's name and every value."""
    return {"recipe": recipe, **json.loads(json.dumps(asdict(config)))}


def differences(old: dict, new: dict) -> list[str]:
    """Lines `optimizer.lr: 0.1 -> 0.2` for the values in which two configurations differ."""
    old, new = flatten(old), flatten(new)
    return [
        f"{key}: {old.get(key, '-')} -> {new.get(key, '-')}"
        for key in sorted(old | new)
        if old.get(key, "-") != new.get(key, "-")
    ]


def flatten(values: dict, prefix: str = "") -> dict:
    """{"optimizer": {"lr": 0.1}} -> {"optimizer.lr": 0.1}."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
