"""Files that are there whole or not at all."""

import json
import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes `path` whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_json(path: Path, values: dict) -> None:
    """Writes an object, whole or not at all."""
    write_whole(path, json.dumps(values, indent=2) + "\n")
