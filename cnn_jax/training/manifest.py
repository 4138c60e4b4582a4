"""What a checkpoint's folder held when it was acknowledged: `DIR/STEP/manifest.json`.

The step, size and sha256 of every file, what a test of that step found, and a sha256 of the manifest itself.
A step with a manifest that verifies counts as saved; nothing else does. On gs:// the checksum of a file is
the CRC-32C that its listing tells, so that nothing is read again.
"""

import errno
import hashlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from cnn_jax import storage
from cnn_jax.errors import Unavailable

MANIFEST = "manifest.json"
PART = ".manifest.part"  # STEP.manifest.part, there while STEP is saved or its test written down
BEST_BY = "test_top1"  # if a test does not say what it is judged by
UNREADABLE = (OSError, ValueError, KeyError, TypeError)  # what a manifest of other contents leads to


def seal(folder: Path) -> None:
    """Writes the manifest of a step that is whole; a power loss afterwards costs nothing of it."""
    files = {name: _describe(found) for name, found in _files(folder).items()}
    if not storage.is_remote(folder):
        for path in (*folder.rglob("*"), folder, folder.parent):
            _sync(path)
    write(folder, {"step": int(folder.name), "files": files})


def steps(directory: Path) -> list[int]:
    """The steps that have a folder, in order."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal() and path.is_dir())


def _files(folder: Path) -> dict[str, Any]:
    """Every file of a step but its manifest, by its path inside the folder; on gs:// its description."""
    if storage.is_remote(folder):
        found = storage.described(folder)
    else:
        found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    return {name: file for name, file in found.items() if name != MANIFEST}


def _describe(file: Path | dict) -> dict:
    if isinstance(file, dict):
        return file
    with file.open("rb") as opened:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def write(folder: Path, content: dict) -> None:
    """Puts the manifest into a step's folder in one move; a power loss afterwards does not undo it."""
    written = part(folder)
    if storage.is_remote(folder):
        (folder / MANIFEST).write_text(_with_seal(content))
        written.unlink(missing_ok=True)
        return
    try:
        written.write_text(_with_seal(content))
        _sync(written)
        written.replace(folder / MANIFEST)
    except OSError:
        written.unlink(missing_ok=True)
        raise
    _sync(folder)


def part(folder: Path) -> Path:
    """The manifest to be: beside the folder from the begin of a save on, inside as its end."""
    return folder.with_name(folder.name + PART)


def read(folder: Path) -> dict:
    """Raises FileNotFoundError without a manifest, ValueError if it is not as it was written, Unavailable."""
    path = folder / MANIFEST
    text = storage.patiently(path.read_bytes, f"{path} cannot be read")
    content = json.loads(text)
    del content["sha256"]
    if _with_seal(content).encode() != text:
        raise ValueError("other contents")
    return content


def _with_seal(content: dict) -> str:
    """A manifest's text: `content` and a sha256 of it, as JSON."""
    dumps = partial(json.dumps, sort_keys=True, indent=1, default=float)  # NumPy's numbers
    return dumps(content | {"sha256": hashlib.sha256(dumps(content).encode()).hexdigest()})


def read_all(directory: Path) -> dict[int, dict]:
    """The manifests of all steps, without those that cannot be read."""
    found = {}
    for step in steps(directory):
        try:
            found[step] = read(directory / str(step))
        except Unavailable:
            raise
        except UNREADABLE:
            continue
    return found


def best(manifests: dict[int, dict]) -> int | None:
    """The step with the highest figure that its test is judged `by`, the earlier of equals; None if none was tested.

    Among those tested on the same images as the newest: a resumed run may have begun to hold some out.
    """
    noted = {step: found.get("metrics", {}) for step, found in manifests.items()}
    tested = {step: metrics for step, metrics in noted.items() if _by(metrics) in metrics}
    alike = [step for step in tested if tested[step].get("tested") == tested[max(tested)].get("tested")]
    return max(alike, key=lambda step: (tested[step][_by(tested[step])], -step), default=None)


def _by(metrics: dict) -> str:
    return metrics.get("by", BEST_BY)


def fault(folder: Path) -> str | None:
    """What is wrong with a step's folder, None if it is as it was acknowledged.

    Raises:
      Unavailable: it cannot be read at present.
    """
    try:
        content, there = read(folder), _files(folder)
        step, listed = content.get("step", int(folder.name)), content["files"]  # older ones do not know their step
    except FileNotFoundError:
        return "was not finished" if folder.exists() else "is not there"
    except Unavailable:
        raise
    except UNREADABLE:
        return f"is damaged ({MANIFEST}: other contents)"
    if step != int(folder.name):
        return f"is damaged (it is the one of step {step})"
    told = ((name, _changed(folder / name, there.get(name), listed.get(name))) for name in sorted(listed | there))
    return next((f"is damaged ({name}: {change})" for name, change in told if change), None)


def _changed(path: Path, there: Any, listed: dict | None) -> str | None:
    """What has become of a file since it was `listed`."""
    if there is None or listed is None:
        return "missing" if listed else "not part of it"
    try:
        found = storage.patiently(partial(_describe, there), f"{path} cannot be read")
    except OSError as error:
        return error.strerror
    if found == listed:
        return None
    return "cut short" if found["size"] < listed["size"] else "other contents"


def _sync(path: Path) -> None:
    """Returns when a file, or the names in a folder, would outlive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without anything to sync for a folder
            raise
    finally:
        os.close(handle)
