"""Prepares TFDS data sets as ArrayRecord files, from the network or from files on disk, without TensorFlow if it can.

All is written in a folder of its own, `incomplete.NAME`, under a lock; the finished version is moved
to its place by one rename. So a half-prepared set never passes for a whole one, and what a killed
process left is removed by the next.
"""

import contextlib
import errno
import importlib.util
import io
import logging
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from cnn_jax import storage
from cnn_jax.atomic import alone
from cnn_jax.data.raw_files import READERS
from cnn_jax.data.tfds_sets import find_builder, image_and_label
from cnn_jax.errors import UserError, first_line
from cnn_jax.fetch import fetch

RETRIES = 2  # of TFDS's own downloads; its 10 take 200 seconds to say that there is no network
STALE = 3_600  # seconds that TFDS writes nothing to a file that it downloads, if its process is dead
OTHERWISE = "--from-files DIR takes files that are here already"
NO_SPACE = os.strerror(errno.ENOSPC)  # all that ArrayRecord tells of a full disk is its text
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOLCK)


class NotWritable(UserError):
    """The folder for prepared data sets cannot be made or written, or is full."""


def prepare(name: str, data_dir: str | os.PathLike | None = None, from_files: str | Path | None = None) -> Any:
    """Prepares TFDS set `name` unless it is prepared; returns its builder.

    `from_files` is a folder with the files that its authors publish, or, for sets that TFDS itself
    has to read, TFDS's manual_dir. Any number of processes may ask for the same set at once: one
    prepares it, the others wait.

    Raises:
      NotWritable: `data_dir` is no place to write, or full.
      UserError: no such set, or one without images and class labels; files that are missing or
        damaged; no network; a set that TFDS prepares with TensorFlow.
    """
    if from_files is not None and not Path(from_files).is_dir():
        raise UserError(f"--from-files {from_files} is not a directory")
    builder = find_builder(name, data_dir)
    if builder.is_prepared():
        return builder
    image_and_label(builder)  # before hours of work for nothing
    if storage.is_remote(builder.data_dir):
        raise UserError(f"{name} cannot be prepared in {builder.data_dir}; prepare it on a disk and copy it there")
    root = Path(builder.data_dir_root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with alone(root / f".{builder.name}.lock"):
            if not (ready := find_builder(name, data_dir)).is_prepared():
                print(f"preparing {name} in {builder.data_dir} (once)", flush=True)
                _prepare(name, ready, root / f"incomplete.{builder.name}", from_files)
    except UserError:
        raise
    except Exception as error:  # whatever a builder, a server or a disk comes up with
        raise _told(error, name, builder, from_files) from error
    return find_builder(name, data_dir)


def _prepare(name: str, builder, scratch: Path, from_files: str | Path | None) -> None:
    """Makes the set in `scratch` and moves it to its place. To be called under the lock."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    downloads, read = scratch.parent / "downloads", READERS.get(builder.name)
    files = None if from_files is None else Path(from_files)
    shutil.rmtree(scratch, ignore_errors=True)  # left by a process that was killed, since the lock is ours
    _remove_stale(downloads, builder.name)
    if read is not None and files is None:
        files = _fetch_all(name, builder, downloads / builder.name)
    try:
        staged = find_builder(name, scratch)
        if read is not None and files is not None:
            splits = read(staged, files)
            staged._split_generators = lambda manager: splits
        elif builder.url_infos and importlib.util.find_spec("tensorflow") is None:
            raise ImportError(name="tensorflow")  # before a long download, not after it
        if builder.name == "mnist_5k" or not sys.stderr.isatty():
            tfds.disable_progress_bar()
        vars(downloader)["MAX_RETRIES"] = RETRIES
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # the last of them tells it
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS names the scratch folder as the set's place
            staged.download_and_prepare(
                file_format="array_record",
                download_dir=downloads if read is None else scratch / "downloads",
                download_config=tfds.download.DownloadConfig(manual_dir=files),
            )
        target = Path(builder.data_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        about_configs = scratch / builder.name / ".config"
        if about_configs.exists():
            shutil.copytree(about_configs, target.parent.parent / ".config", dirs_exist_ok=True)
        os.rename(staged.data_dir, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch_all(name: str, builder, folder: Path) -> Path:
    """The files that TFDS knows of a set, under their own names in `folder`."""
    for url, known in builder.url_infos.items():
        if known.filename is None:  # ImageNet's, behind a registration
            told = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split()).replace("manual_dir", "DIR")
            raise UserError(f"{name} needs --from-files DIR. {told}")
        fetch(url, folder / known.filename, known.checksum, known.size, otherwise=OTHERWISE)
    return folder


def _remove_stale(downloads: Path, name: str) -> None:
    """What TFDS's own downloads left long ago; a younger one may be that of a plain TFDS, which knows no lock."""
    for part in (*(downloads / name).rglob("*.tmp.*"), *downloads.glob("extracted/incomplete.*")):
        with contextlib.suppress(OSError):
            if time.time() - max(path.stat().st_mtime for path in (part, *part.rglob("*"))) > STALE:
                shutil.rmtree(part)


def _told(error: BaseException, name: str, builder, from_files) -> UserError:
    """The line for an error that came out of TFDS, often wrapped in others."""
    chain, cause = [], error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    place = builder.data_dir_root
    for cause in chain:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, ImportError):
            command = ["cnn-jax", "prepare", name, "--data-dir", str(place)]
            command += [] if from_files is None else ["--from-files", str(from_files)]
            needed = cause.name or "another package"
            return UserError(
                f"TFDS needs {needed} to prepare {name}: run once `uv run --with {needed} {shlex.join(command)}`"
            )
        full = NO_SPACE in str(cause)
        if full or (isinstance(cause, OSError) and cause.errno in DISK):
            why = NO_SPACE if full else cause.strerror
            return NotWritable(
                f"cannot prepare {name} in {builder.data_dir}: {why}; --data-dir DIR names another place"
            )
    return UserError(f"cannot prepare {name} in {builder.data_dir}: {first_line(error)}")
