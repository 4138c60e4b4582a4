"""Rows of text in columns."""

import re
from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[object]]) -> str:
    """Columns two blanks apart; numbers stand to the right, everything else to the left.

    None shows as "-", whole numbers with commas; a float is to be formatted by the caller.
    """
    table = [["-" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if re.fullmatch(r"[\d.,]+", text) else text.ljust(width)
            for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    )
