"""Records of many files, of which a few are open."""

import contextlib
import os
import re
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from runs import SAFETY

from cnn_jax import UserError
from cnn_jax.data import shards
from cnn_jax.data.shards import Shards
from cnn_jax.data.tfds_sets import TfdsSource

FILES, EACH = 300, 3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Many files of a few records; record i is the text of i."""
    folder, found = tmp_path_factory.mktemp("shards"), []
    for file in range(FILES):
        path = str(folder / f"set.array_record-{file:05d}-of-{FILES:05d}")
        writer = ArrayRecordWriter(path, "group_size:1")
        for record in range(EACH):
            writer.write(b"%d" % (file * EACH + record))
        writer.close()
        found.append((path, EACH))
    return tuple(found)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_records_come_in_the_order_asked_for(files):
    for remote in (False, True):  # one file after another, or all at once
        found = Shards(files, remote)
        assert found.read([899, 0, 4, 0, 3, 500]) == [b"899", b"0", b"4", b"0", b"3", b"500"]
        assert found.read([7]) == [b"7"]


def test_only_a_few_files_are_open(files, monkeypatch):
    monkeypatch.setattr(shards, "allowed_files", lambda: 80)
    found, before = Shards(files, remote=False), descriptors()
    with ThreadPoolExecutor(4) as threads:
        numbers = [number * 7 % 900 for number in range(1800)]
        assert list(threads.map(lambda number: found.read([number])[0], numbers)) == [b"%d" % n for n in numbers]
    assert descriptors() - before <= 80 // shards.SHARE


def test_a_process_asks_for_more_files_than_it_was_given():
    code = (
        "import resource\nfrom cnn_jax.data.shards import allowed_files\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "print(soft, hard, allowed_files())"
    )
    lower = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1000))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, preexec_fn=lower, capture_output=True, text=True, timeout=SAFETY, check=True)
    assert done.stdout == "256 1000 1000\n"


def test_where_no_file_can_be_opened_the_limit_is_told(files):
    """Not as a bad image, of which --bad-images skip would make nothing."""
    source, (soft, hard) = TfdsSource(files, "image", "label"), resource.getrlimit(resource.RLIMIT_NOFILE)
    source._parser  # imports what it needs while files can be opened
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 5, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(UserError) as error:
            source.read([1])
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert type(error.value) is UserError
    assert re.fullmatch(
        r"record 1 of .* cannot be opened: this process may open \d+ files; `ulimit -n .*", str(error.value)
    )
