"""Configurations as JSON: what a run writes down and is compared with when it is resumed."""

import json
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cnn_jax import storage
from cnn_jax.errors import UserError, did_you_mean
from cnn_jax.recipes.checks import check
from cnn_jax.recipes.recipe import ModelOptions, Recipe

LARGEST = 1e300  # of a number in a configuration; every field has a smaller bound of its own


def read_json(path: str | Path) -> dict:
    """An object from a JSON file; a UserError says what is wrong with it."""
    with storage.telling(f"cannot read {path}"):
        content = storage.place(path).read_bytes()
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold an object such as {{'epochs': 5, 'optimizer': {{'lr': 0.02}}}}")
    return values


def to_json(recipe: str, config: Recipe) -> dict:
    """What `--config` reads back: the recipe's name and every value."""
    return {"recipe": recipe, **json.loads(json.dumps(asdict(config)))}


def override(config: Any, values: dict, prefix: str = "") -> Any:
    """A copy of a recipe (or of a part of it) with the values of a nested dictionary in place.

    Raises:
      UserError: a key that the recipe does not have, or a value of the wrong kind.
    """
    hints = get_type_hints(type(config))
    changes = {}
    for key, value in values.items():
        name = prefix + key
        if key not in hints:
            raise UserError(did_you_mean("value", name, [prefix + hint for hint in hints]))
        if is_dataclass(hints[key]):
            check(isinstance(value, dict), name, json.dumps(value), "an object")
            changes[key] = override(getattr(config, key), value, f"{name}.")
        else:
            changes[key] = _converted(value, hints[key], name)
    return replace(config, **changes)


def _converted(value: Any, hint: Any, name: str) -> Any:
    """A JSON value as the type that a field has, or a UserError."""
    if get_origin(hint) is Literal:
        check(value in get_args(hint), name, json.dumps(value), "one of " + ", ".join(get_args(hint)))
        return value
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        right = "a list of text" if item is str else "a list of numbers"
        check(isinstance(value, list), name, json.dumps(value), right)
        return tuple(_converted(one, item, name) for one in value)
    if get_origin(hint) in (UnionType, Union):  # str | None, Literal[...] | None
        return None if value is None else _converted(value, get_args(hint)[0], name)
    if hint is ModelOptions:
        check(isinstance(value, dict), name, json.dumps(value)[:60], 'an object such as {"se_reduction": 16}')
        return ModelOptions(value)
    kinds, right = {
        float: (int | float, "a number"),
        int: (int | float, "a whole number"),
        bool: (bool, "true or false"),
        str: (str, "text"),
    }[hint]
    fits = isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
    if fits and hint in (int, float):
        fits = abs(value) <= LARGEST and (hint is float or value == int(value))  # False for a NaN
    check(fits, name, json.dumps(value)[:60], right)
    return hint(value)


def differences(old: dict, new: dict) -> list[str]:
    """Lines `optimizer.lr: 0.1 -> 0.2` for the values in which two configurations differ.

    A value that `old` lacks, since a recipe had none when it was written, is the default.
    """
    old, new, usual = flatten(old), flatten(new), flatten(to_json("", Recipe("")))
    before = {key: old.get(key, usual.get(key, "-")) for key in sorted(old | new)}
    return [f"{key}: {value} -> {new.get(key, '-')}" for key, value in before.items() if value != new.get(key, "-")]


def flatten(values: dict, prefix: str = "") -> dict:
    """{"optimizer": {"lr": 0.1}} -> {"optimizer.lr": 0.1}."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
