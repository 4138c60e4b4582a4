"""How values of a recipe are refused."""

import math

from cnn_jax.errors import UserError


def check(condition: bool, name: str, value: object, right: str) -> None:
    """Raises a UserError `NAME must be RIGHT, not VALUE` unless `condition` holds."""
    if not condition:
        raise UserError(f"{name} must be {right}, not {value}")


def check_range(
    name: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Raises a UserError unless `value` is finite and in [low, high], an open end left out."""
    check(abs(value) < math.inf, name, value, "a finite number")
    inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    bound = f"above {low:g}" if open_low else f"at least {low:g}"
    if high < math.inf:
        bound += f" and {'below' if open_high else 'at most'} {high:,}"
    check(inside, name, value, bound)
