"""A Google Cloud Storage of one folder on loopback: what gcsfs, tensorstore, ArrayRecord and Google's client ask for.

Lists, metadata, ranged reads, uploads with preconditions, copies and deletions of the JSON API, nothing else.
"""

import base64
import contextlib
import itertools
import json
import re
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

OBJECT = re.compile(
    r"(?:/download|/upload)?/storage/v1/b/([^/]+)(/o)?(?:/([^/]+))?(?:/(rewriteTo/b/[^/]+|moveTo)/o/([^/]+))?"
)


class Refused(Exception):
    """An HTTP status in place of an answer."""


class Bucket:
    """What is in `folder/BUCKET`, an object a file; each writing gives it another generation."""

    def __init__(self, folder: Path):
        self.folder, self.generations, self.lock = folder, {}, threading.Lock()

    def generation(self, file: Path) -> int:
        return self.generations.setdefault(file, 1) if file.is_file() else 0

    def about(self, file: Path, root: Path) -> dict:
        content, now = file.read_bytes(), "2026-01-01T00:00:00.000Z"
        crc = base64.b64encode(struct.pack(">I", google_crc32c.value(content))).decode()
        about = {"kind": "storage#object", "name": file.relative_to(root).as_posix(), "bucket": root.name}
        about |= {"size": str(len(content)), "crc32c": crc, "generation": str(self.generation(file))}
        return about | {"updated": now, "timeCreated": now, "storageClass": "STANDARD"}

    def change(self, file: Path, query: dict, content: bytes | None) -> None:
        """Writes an object or removes it, if its generation is the one that `query` asks for."""
        with self.lock:
            there = self.generation(file)
            if there != int(query.get("ifGenerationMatch", there)):
                raise Refused(412)
            if content is None and not there:
                raise Refused(404)
            self.generations[file] = there + 1
            if content is None:
                del self.generations[file]
                return file.unlink()
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(file.name + ".uploading")
            part.write_bytes(content)
            part.replace(file)


def parts(headers, body: bytes) -> list[bytes]:
    """The contents of a multipart body."""
    boundary = re.search(r"boundary=[\"']?([^\"';]+)", headers["Content-Type"])[1].encode()
    contents = []
    for part in body.split(b"--" + boundary)[1:-1]:
        line = b"\r\n" if part.startswith(b"\r\n") else b"\n"
        contents.append(part.removesuffix(line).split(2 * line, 1)[1])
    return contents


@contextlib.contextmanager
def serve(folder: Path, fault: Callable[[int], int | None] = lambda read: None):
    """Folder `folder/BUCKET` is bucket gs://BUCKET. Gives the environment in which every client finds it.

    `fault(n)` is the HTTP status that the n-th read of an object's content fails with, from 1 on, if any; with 0 it
    gets no answer.
    """
    bucket, uploads, reads = Bucket(folder), {}, itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one: the second packet would wait 40 ms for the first one's acknowledgement

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                batch = self.path.startswith("/batch/")
                self.reply(*(self.batch(body) if batch else self.act(self.command, self.path, body)))
            except Refused as refused:
                if not refused.args[0]:
                    self.close_connection = True
                    return
                self.reply(refused.args[0], {"error": {"code": refused.args[0], "message": "Not Found"}})

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def act(self, method, path, body):  # noqa: PLR0911
            """An answer's status, body and maybe headers."""
            asked = urlsplit(path)
            query = dict(parse_qsl(asked.query))
            match = OBJECT.fullmatch(asked.path)
            if match is None:
                raise Refused(404)
            root = folder / match[1]
            if not root.is_dir():
                raise Refused(404)
            if asked.path.startswith("/upload"):
                return self.upload(query, body, root)
            if match[3] is None:
                return 200, listing(root, query) if match[2] else {"name": match[1]}
            file = root / unquote(match[3])
            if method == "DELETE":
                bucket.change(file, query, None)
                return 204, b""
            if not file.is_file():
                raise Refused(404)
            if method == "POST":
                to = root if match[4] == "moveTo" else folder / match[4].rpartition("/")[2]
                bucket.change(to / unquote(match[5]), query, file.read_bytes())
                if match[4] == "moveTo":
                    bucket.change(file, {}, None)
                about = bucket.about(to / unquote(match[5]), to)
                return 200, about if match[4] == "moveTo" else {"done": True, "resource": about}
            if query.get("alt") != "media":
                return 200, bucket.about(file, root)
            if (failed := fault(next(reads))) is not None:
                raise Refused(failed)
            content, wanted = file.read_bytes(), self.headers.get("Range")
            about = {"X-Goog-Generation": str(bucket.generation(file))}
            if not wanted:
                return 200, content, about
            start, end = re.fullmatch(r"bytes=(-?\d+)-?(\d*)", wanted).groups()
            first = int(start) if int(start) >= 0 else max(0, len(content) + int(start))
            part = content[first : int(end) + 1 if end else len(content)]
            if not part:
                raise Refused(416)
            return 206, part, about | {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}"}

        def upload(self, query, body, root):
            """An object in one request, alone or behind its description, or in pieces that follow one another."""
            if "upload_id" in query:
                name, query, before = uploads[query["upload_id"]]
                before += body
                end = re.search(r"/(\d+)$", self.headers["Content-Range"])
                if end is None:
                    return 308, b"", {"Range": f"bytes=0-{len(before) - 1}"}
                body = bytes(before)
            elif query["uploadType"] == "resumable":
                number = str(len(uploads))
                uploads[number] = query.get("name") or json.loads(body)["name"], query, bytearray()
                return 200, b"", {"Location": f"{url}{self.path}&upload_id={number}"}
            elif query["uploadType"] == "multipart":
                described, body = parts(self.headers, body)
                name = json.loads(described)["name"]
            else:
                name = query["name"]
            bucket.change(root / name, query, body)
            return 200, bucket.about(root / name, root)

        def batch(self, body):
            """Several requests in one, each a part that holds its own request line."""
            answers = []
            for number, part in enumerate(parts(self.headers, body), 1):
                method, path, _ = part.decode().split(maxsplit=2)
                try:
                    code = self.act(method, path, b"")[0]
                except Refused as refused:
                    code = refused.args[0]
                place = f"Content-Type: application/http\r\nContent-ID: <response-{number}>"
                answers.append(f"--batch\r\n{place}\r\n\r\nHTTP/1.1 {code} ok\r\nContent-Length: 0\r\n\r\n\r\n")
            body = "".join([*answers, "--batch--"]).encode()
            return 200, body, {"Content-Type": "multipart/mixed; boundary=batch"}

        def reply(self, code, body=b"", headers=()):
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            about = {"Content-Type": "application/json", "Content-Length": str(len(body))} | dict(headers)
            for name, value in about.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the reader has what it wanted
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    def listing(root, query):
        prefix, items, folders = query.get("prefix", ""), [], set()
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            name = file.relative_to(root).as_posix()
            rest = name.removeprefix(prefix)
            if name.startswith(prefix) and query.get("delimiter") and "/" in rest:
                folders.add(prefix + rest.partition("/")[0] + "/")
            elif name.startswith(prefix):
                items.append(bucket.about(file, root))
        return {"items": items, "prefixes": sorted(folders)}

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # of five some connections are lost, and Google's client waits longer each time

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    names = ("STORAGE_EMULATOR_HOST", "CLOUD_STORAGE_EMULATOR_ENDPOINT", "TENSORSTORE_GCS_HTTP_URL")
    try:
        yield dict.fromkeys(names, url) | {"GOOGLE_AUTH_TOKEN_FOR_TESTING": "token"}
    finally:
        server.shutdown()
        server.server_close()
