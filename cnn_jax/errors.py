"""Mistakes of a user, told in one line: what was wrong and what would be right."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend. Its message is one line; commands print it and exit 2."""


class BadData(UserError):
    """What a data set holds cannot be used, or not be read. Of several processes maybe only this one has met it.

    A run that meets it is saved before it ends.
    """


def did_you_mean(kind: str, name: str, choices: Iterable[str]) -> str:
    """The line for an unknown name: `unknown KIND 'NAME'; did you mean A, B?`.

    Without a near name it lists the first dozen choices instead.
    """
    choices = sorted(set(choices))
    near = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.6)
    if near:
        return f"unknown {kind} {name!r}; did you mean {', '.join(near)}?"
    shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    return f"unknown {kind} {name!r}; there are: {shown}"


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line; a very long one loses its middle."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= 300 else f"{line[:150]} ... {line[-145:]}"
