"""Files from the network, whole or not at all."""

import contextlib
import hashlib
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

from tqdm import tqdm

from cnn_jax.errors import UserError, first_line

TIMEOUT = 10  # seconds without an answer
BLOCK = 1 << 18


def fetch(url: str, path: Path, sha256: str, size: int | None = None, *, otherwise: str) -> None:
    """Downloads to `path`, with progress on a terminal, unless it is there; goes on with what a killed process left.

    `sha256` may be the first digits alone, or none. A `size` that is not given is what the server
    says. `otherwise` ends the line of a failure with what helps without the network.

    Raises:
      UserError: no answer within seconds, or what came is not the file of that size and checksum.
      OSError: `path` cannot be written.
    """
    if path.exists():
        return  # it was checked before it got its name
    part = path.with_name(f"{path.name}.part")
    had = part.stat().st_size if part.exists() else 0
    if size is None or had < size:
        start = had if size else max(had - 1, 0)  # a server has no answer for nothing more
        with _told(url, otherwise):
            request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                path.parent.mkdir(parents=True, exist_ok=True)
                goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT
                start *= goes_on
                size = size or start + (answer.length or 0)
                quiet = not sys.stderr.isatty()
                progress = tqdm(None, path.name, size or None, initial=start, unit="B", unit_scale=True, disable=quiet)
                with part.open("r+b" if goes_on else "wb") as file, progress:
                    file.seek(start)
                    while block := answer.read(BLOCK):
                        file.write(block)
                        progress.update(len(block))
    came = part.stat().st_size
    if came < size:
        raise UserError(f"{url} ended after {came:,} of {size:,} bytes; run this again to go on from there")
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256):
        part.unlink()
        raise UserError(f"{url} is not the file that was published: its sha256 is {digest}, not {sha256}")
    part.rename(path)


@contextlib.contextmanager
def _told(url: str, otherwise: str) -> Generator[None]:
    try:
        yield
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
        why = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", first_line(error))
        raise UserError(f"cannot fetch {url}: {why}; {otherwise}") from None
