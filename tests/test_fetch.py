import hashlib
import socket

import numpy as np
import pytest
from file_server import FileServer

from cnn_jax import UserError
from cnn_jax.data import fetch as module
from cnn_jax.data.fetch import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def served(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file.bin").write_bytes(CONTENT)
    return tmp_path / "served"


def get(server, path, sha256=SHA256):
    fetch(f"{server.url}/some/where/file.bin", path, len(CONTENT), sha256)


def test_a_file_is_fetched_once(served, tmp_path):
    with FileServer(served) as server:
        for _ in range(2):
            get(server, tmp_path / "new" / "file.bin")
    assert (tmp_path / "new" / "file.bin").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.bin"]
    assert len(server.asked) == 1


@pytest.mark.parametrize(("had", "ranges"), [(100_000, True), (100_000, False), (300_000, True)])
def test_a_part_is_gone_on_with(served, tmp_path, had, ranges):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:had])
    with FileServer(served, ranges=ranges) as server:
        get(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == ([] if had == 300_000 else [("file.bin", f"bytes={had}-")])


def test_an_answer_that_ends_early_can_be_gone_on_with(served, tmp_path):
    with FileServer(served, send=200_000) as server:
        with pytest.raises(UserError, match="ended after 200,000 of 300,000 bytes; run this again to go on"):
            get(server, tmp_path / "file.bin")
        assert not (tmp_path / "file.bin").exists()
        get(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_another_file_is_not_kept(served, tmp_path):
    with FileServer(served) as server, pytest.raises(UserError, match="is not the file that TFDS knows: its sha256"):
        get(server, tmp_path / "file.bin", "0" * 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["served"]


def test_a_missing_file_is_told(served, tmp_path):
    with FileServer(served) as server, pytest.raises(UserError) as error:
        fetch(f"{server.url}/other", tmp_path / "other", 1, SHA256)
    assert "/other: HTTP Error 404: Not Found; --from-files DIR takes files that are here" in str(error.value)


def test_a_server_that_does_not_answer_is_told_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(UserError, match="cannot fetch http://127.0.0.1:.*timed out"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/x", tmp_path / "x", 1, SHA256)
        port = silent.getsockname()[1]
        silent.setblocking(False)
        silent.accept()
        with pytest.raises(BlockingIOError):  # it was asked once
            silent.accept()
    with pytest.raises(UserError, match="Connection refused"):
        fetch(f"http://127.0.0.1:{port}/x", tmp_path / "x", 1, SHA256)
