"""Options of modules: the types of a class's fields say what they may be, and making one checks them."""

from collections.abc import Callable
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UserError, did_you_mean


class Such(NamedTuple):
    """In `Annotated[type, Such(...)]`: of the values of that type those for which `holds`; `right` says it in words."""

    right: str
    holds: Callable[[Any], bool] = lambda value: True
    why: str = ""


ModuleDef = Callable[..., nn.Module]
Stem = Literal["imagenet", "cifar"]
DeepStem = Literal["imagenet", "deep", "cifar"]
OutputStride = Literal[8, 16, 32]
GlobalPool = Literal["avg", "max", "avgmax", ""]
Classes = Annotated[int, Such("a whole number, 0 for features", lambda n: n >= 0)]
Count = Annotated[int, Such("a whole number above 0", lambda n: n > 0)]
Factor = Annotated[float, Such("a number above 0", lambda value: 0 < value < float("inf"))]
Rate = Annotated[float, Such("a rate of at least 0 and below 1", lambda rate: 0 <= rate < 1)]
Reduction = Annotated[Count | None, Such("a whole number such as 16, or None")]
Globs = Annotated[tuple[str, ...], Such('a tuple of globs such as ("stage1*",)')]
# A function of a block's name is for create_model alone, which so finds the names.
Remat = Annotated[bool | Globs | Callable[[str], Any], Such('True, False or a tuple of globs such as ("stage1*",)')]

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a word",
    type(None): "None",
    jnp.dtype: "a floating-point type such as jnp.bfloat16",
}


class Checked(nn.Module):
    """A module whose fields are checked against their types when it is made.

    Raises:
      UserError: a field of another type, a word that is none of its Literal, a value out of its range.
    """

    def __post_init__(self):
        for field in self.__dataclass_fields__.values():
            if field.name not in ("parent", "name"):
                check(field.name, getattr(self, field.name), field.type)
        super().__post_init__()


def check(name: str, value: Any, hint: Any) -> None:
    """Raises a UserError unless `value` is what the type of the option `name` says."""
    if fits(value, hint):
        return
    choices = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
    if choices and isinstance(value, str):
        raise UserError(did_you_mean(name, value, map(str, get_args(choices[0]))))
    if hint is jnp.dtype and isinstance(value, str):
        raise UserError(did_you_mean(name, value, ("bfloat16", "float16", "float32", "float64")))
    why = next((part.why for part in get_args(hint) if isinstance(part, Such) and part.why), "")
    raise UserError(f"{name} must be {words(hint)}, not {value!r}{why and f': {why}'}")


def words(hint: Any) -> str:
    """What a value of a type is."""
    parts = get_args(hint)
    if get_origin(hint) is Annotated:
        return next((part.right for part in parts[1:] if isinstance(part, Such)), words(parts[0]))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(words, parts))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, parts))}"
    return WORDS.get(hint, str(hint))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; NumPy's numbers are numbers, and a truth value is none."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        good = fits(value, parts[0]) and all(part.holds(value) for part in parts[1:] if isinstance(part, Such))
    elif origin in (Union, UnionType):
        good = any(fits(value, part) for part in parts)
    elif origin is Literal:
        good = any(fits(value, type(choice)) and value == choice for choice in parts)
    elif origin is tuple and isinstance(value, tuple):
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        good = len(value) == len(kinds) and all(map(fits, value, kinds))
    elif Callable in (origin, hint):
        good = callable(value)
    elif hint is jnp.dtype:
        good = _is_float(value)
    elif hint in (int, float):
        good = isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    else:
        good = isinstance(value, (bool, np.bool_) if hint is bool else origin or hint)
    return good


def _is_float(value: Any) -> bool:
    try:
        return value is not None and jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        return False
