"""A Google Cloud Storage of one folder on loopback: lists, metadata and ranged reads of the JSON API, nothing else."""

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit


@contextlib.contextmanager
def serve(folder: Path):
    """Folder `folder/BUCKET` is bucket gs://BUCKET. Gives the environment in which gcsfs and ArrayRecord find it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query))
            match = re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)(/o)?(?:/(.+))?", url.path)
            if match is None:
                return self.reply(404)
            bucket, listing, name = match.groups()
            if name is None:
                return self.reply(200, self.list(folder / bucket, query) if listing else {"name": bucket})
            file = folder / bucket / unquote(name)
            if not file.is_file():
                return self.reply(404, {"error": {"code": 404, "message": "Not Found"}})
            if query.get("alt") != "media":
                return self.reply(200, self.about(file, folder / bucket))
            content, asked = file.read_bytes(), self.headers.get("Range")
            if not asked:
                return self.reply(200, content)
            start, end = re.fullmatch(r"bytes=(-?\d+)-?(\d*)", asked).groups()
            first = int(start) if int(start) >= 0 else max(0, len(content) + int(start))
            part = content[first : int(end) + 1 if end else len(content)]
            if not part:
                return self.reply(416)
            self.reply(206, part, f"bytes {first}-{first + len(part) - 1}/{len(content)}")

        def list(self, root, query):
            prefix, items, folders = query.get("prefix", ""), [], set()
            for file in sorted(path for path in root.rglob("*") if path.is_file()):
                name = file.relative_to(root).as_posix()
                rest = name.removeprefix(prefix)
                if name.startswith(prefix) and query.get("delimiter") and "/" in rest:
                    folders.add(prefix + rest.partition("/")[0] + "/")
                elif name.startswith(prefix):
                    items.append(self.about(file, root))
            return {"items": items, "prefixes": sorted(folders)}

        def about(self, file, root):
            name, now = file.relative_to(root).as_posix(), "2026-01-01T00:00:00.000Z"
            about = {"name": name, "bucket": root.name, "size": str(file.stat().st_size), "generation": "1"}
            return about | {"updated": now, "timeCreated": now, "storageClass": "STANDARD"}

        def reply(self, code, body=b"", content_range=None):
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the reader has what it wanted
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield {"STORAGE_EMULATOR_HOST": url, "CLOUD_STORAGE_EMULATOR_ENDPOINT": url}
    finally:
        server.shutdown()
        server.server_close()
