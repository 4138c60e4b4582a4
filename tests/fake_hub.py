"""A Hugging Face Hub on loopback, and a server of any address: repositories are folders USER/NAME of the served one."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from file_server import FileServer, Handler

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(FileServer):
    """Answers for files as the Hub does; `etag` stands in for the checksum of each, where that is to be wrong."""

    def __init__(self, folder: Path, *, etag: str | None = None, **how):
        super().__init__(folder, handler=_Handler, **how)
        self.etag = etag


class _Handler(Handler):
    server: FakeHub

    def file(self) -> Path:
        *start, name = urlsplit(self.path).path.strip("/").split("/")
        repository = start[:2] if start[2:3] == ["resolve"] else ()  # USER/NAME/resolve/REVISION/FILE
        return self.server.folder.joinpath(*repository, name)

    def refuse(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound" if self.file().parent.is_dir() else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_headers_of(self, file: Path) -> None:
        self.send_header("ETag", f'"{self.server.etag or hashlib.sha256(file.read_bytes()).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
