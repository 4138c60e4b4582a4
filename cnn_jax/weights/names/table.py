"""What a table of names is."""

Row = tuple[str, str] | tuple[str, str, int]
Table = tuple[Row, ...]
