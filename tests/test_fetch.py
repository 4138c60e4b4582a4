import hashlib
import socket

import numpy as np
import pytest
from file_server import FileServer

from cnn_jax import UserError
from cnn_jax import fetch as module
from cnn_jax.fetch import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def served(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file.bin").write_bytes(CONTENT)
    return tmp_path / "served"


def get(server, path, sha256=SHA256, size: int | None = len(CONTENT)):
    fetch(f"{server.url}/some/where/file.bin", path, sha256, size, otherwise="or else")


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


@pytest.mark.parametrize("had", [0, 1, 100_000, 300_000])
def test_the_server_tells_a_size_that_is_not_known(served, tmp_path, had):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:had])
    with FileServer(served) as server:
        get(server, tmp_path / "file.bin", SHA256[:8], None)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [("file.bin", f"bytes={had - 1}-" if had > 1 else None)]  # the last byte again


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_an_answer_that_ends_early_can_be_gone_on_with(served, tmp_path, size):
    with FileServer(served, send=200_000) as server:
        with pytest.raises(UserError, match="ended after 200,000 of 300,000 bytes; run this again to go on"):
            get(server, tmp_path / "file.bin", size=size)
        assert not (tmp_path / "file.bin").exists()
        get(server, tmp_path / "file.bin", size=size)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_another_file_is_not_kept(served, tmp_path):
    with (
        FileServer(served) as server,
        pytest.raises(UserError, match="is not the file that was published: its sha256"),
    ):
        get(server, tmp_path / "file.bin", "0" * 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["served"]


def test_a_missing_file_is_told(served, tmp_path):
    with FileServer(served) as server, pytest.raises(UserError) as error:
        fetch(f"{server.url}/other", tmp_path / "other", SHA256, 1, otherwise="or else")
    assert str(error.value).endswith("/other: HTTP Error 404: Not Found; or else")


def test_a_server_that_does_not_answer_is_told_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(UserError, match="cannot fetch http://127.0.0.1:.*timed out"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/x", tmp_path / "x", SHA256, 1, otherwise="or else")
        port = silent.getsockname()[1]
        silent.setblocking(False)
        silent.accept()
        with pytest.raises(BlockingIOError):  # it was asked once
            silent.accept()
    with pytest.raises(UserError, match="Connection refused"):
        fetch(f"http://127.0.0.1:{port}/x", tmp_path / "x", SHA256, 1, otherwise="or else")
