"""Weight files from the network, each once: the Hub's in its own cache, those of other addresses in ours."""

import hashlib
import re
from pathlib import Path
from typing import Any

from cnn_jax.atomic import alone
from cnn_jax.errors import UserError, first_line, of_system
from cnn_jax.fetch import fetch
from cnn_jax.storage import caches


def folder() -> Path:
    """Where the files of addresses are kept, and what a user puts there is found."""
    return caches() / "weights"


def from_address(url: str, sha256: str, otherwise: str) -> Path:
    """The file at `url`, in `folder()`; see fetch. HF_HUB_OFFLINE holds here as well; a second process waits."""
    from huggingface_hub import constants

    path = folder() / url.rpartition("/")[2]
    if constants.HF_HUB_OFFLINE and not path.exists():
        raise UserError(f"cannot fetch {url}: HF_HUB_OFFLINE is set; {otherwise}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.with_name(f"{path.name}.lock")):
            fetch(url, path, sha256, otherwise=otherwise)
    except OSError as error:
        raise of_system(f"cannot write {path}", error) from error
    return path


def from_hub(repository: str, file: str, otherwise: str) -> Path:
    """A file of a repository of the Hugging Face Hub, "user/name" or "user/name@revision", in the Hub's own cache.

    HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN and HF_HOME mean what they do there. What has just come must have the sha256
    that the Hub tells. `otherwise` ends the line of a failure: what helps without the network.

    Raises:
      UserError: no such repository or file, no network, or what came is not the file.
    """
    import huggingface_hub  # half a second
    from huggingface_hub import errors

    name, _, revision = repository.partition("@")
    what: dict[str, Any] = {"repo_id": name, "filename": file, "revision": revision or None}
    url, sha256 = name, None
    try:
        url = huggingface_hub.hf_hub_url(**what)
        if not isinstance(huggingface_hub.try_to_load_from_cache(**what), str):
            # This tells at once that there is no network; hf_hub_download tries for half a minute.
            sha256 = huggingface_hub.get_hf_file_metadata(url).etag
        path = Path(huggingface_hub.hf_hub_download(**what, library_name="cnn_jax"))
    except errors.HFValidationError:
        raise UserError(f"{name!r} is no repository of the Hub; these are named hf://user/name") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"there is no {url.partition('/resolve/')[0]}, or it needs a login: hf auth login") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{name} has no revision {revision!r}") from None
    except errors.RemoteEntryNotFoundError:
        raise UserError(f"{name} has no {file}") from None
    except Exception as error:  # of the Hub, of HTTP, of the cache's files
        offline = isinstance(error, errors.OfflineModeIsEnabled)
        why = "HF_HUB_OFFLINE is set" if offline else first_line(error)
        raise UserError(f"cannot fetch {url}: {why}; {otherwise}") from error
    if sha256 and re.fullmatch("[0-9a-f]{64}", sha256):
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != sha256:
            forget(path)
            raise UserError(f"{url} is not the file that was published: its sha256 is {digest}, not {sha256}")
    return path


def forget(path: Path) -> None:
    """Removes a fetched file, of the Hub's cache also what it links to."""
    for each in (path.resolve(), path):
        each.unlink(missing_ok=True)
