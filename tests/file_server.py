"""A small HTTP server of one folder, for tests: ranges, held and cut answers; also a proxy, as it ignores the host."""

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class FileServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, folder: Path, *, hold: int | None = None, send: int | None = None, ranges: bool = True, handler=None
    ):
        """After `hold` bytes of an answer wait until `go_on` is set; `send` only so many bytes, then hang up."""
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.folder, self.hold, self.send, self.ranges = folder, hold, send, ranges
        self.go_on = threading.Event()
        self.asked: list[tuple[str, str | None]] = []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *args):
        self.shutdown()
        super().__exit__(*args)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # clients are killed in tests


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def file(self) -> Path:
        return self.server.folder / urlsplit(self.path).path.rpartition("/")[2]

    def send_headers_of(self, file: Path) -> None:
        pass

    def refuse(self) -> None:
        self.send_error(404)

    def do_GET(self):
        file, asked = self.file(), self.headers.get("Range")
        self.server.asked.append((file.name, asked))
        if not file.is_file():
            self.refuse()
            return
        content, start = file.read_bytes(), 0
        if asked and self.server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_headers_of(file)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(content) if self.server.send is None else start + self.server.send
        with contextlib.suppress(ConnectionError):
            for at in range(start, min(end, len(content)), 65_536):
                if self.server.hold is not None and at >= start + self.server.hold:
                    self.server.go_on.wait()
                self.wfile.write(content[at : min(at + 65_536, end)])

    do_HEAD = do_GET

    def do_CONNECT(self):  # of https
        self.server.asked.append((self.path, None))
        self.send_error(502)

    def log_message(self, *args):
        pass
