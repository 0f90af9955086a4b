"""Downloads: only over the schemes that are allowed, resumed, checked, in place only when whole."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from senoscore.errors import InputDataError

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20
_HANDLERS: dict[str, type[urllib.request.BaseHandler]] = {
    "https": urllib.request.HTTPSHandler,
    "http": urllib.request.HTTPHandler,
    "ftp": urllib.request.FTPHandler,
    "file": urllib.request.FileHandler,
}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to a scheme that is allowed."""

    def __init__(self, schemes: Iterable[str]) -> None:
        self.schemes = tuple(schemes)

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_scheme(newurl, self.schemes, f"the redirect from {req.full_url!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str,
    path: str | Path,
    *,
    sha256: str | None = None,
    schemes: Iterable[str] = ("https",),
    attempts: int = 5,
    wait: float = 2.0,
) -> str:
    """Download a file; a download cut short is taken up where it stopped.

    Parameters
    ----------
    url
        Where it is.
    path
        Where it goes. Until it is whole and checked it is ``.NAME.part`` in the same folder.
    sha256
        What its checksum has to be; None takes what comes and logs its checksum.
    schemes
        Kinds of address allowed, for redirects too.
    attempts
        How often the connection may break.
    wait
        Seconds before the second attempt; doubled each time.

    Returns
    -------
    The sha256 of the file.
    """
    schemes = tuple(schemes)
    path = Path(path)
    _check_scheme(url, schemes, "the address")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    opener = _opener(schemes)
    for attempt in range(1, attempts + 1):
        try:
            _transfer(opener, url, part)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == attempts:
                raise InputDataError(f"{url!r} answered {error.code} {error.reason}") from None
            reason = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error)
            if attempt == attempts:
                raise InputDataError(
                    f"{url!r} could not be downloaded in {attempts} attempts: {reason}"
                ) from None
        logger.warning("%s: %s; attempt %d of %d follows", url, reason, attempt + 1, attempts)
        time.sleep(wait * 2 ** (attempt - 1))
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if sha256 is not None and found != sha256.lower():
        _forget(part)
        raise InputDataError(
            f"{url!r}: the sha256 of the download is {found}, the config has {sha256.lower()}; "
            "the file was changed at its source or on the way"
        )
    part.replace(path)
    _forget(part)
    logger.info("%s: sha256 %s", path, found)
    return found


def _check_scheme(url: str, schemes: tuple[str, ...], what: str) -> None:
    scheme = urlsplit(url).scheme.lower()
    if scheme not in schemes:
        allowed = ", ".join(schemes) or "none"
        raise InputDataError(
            f"{what} leads to {url!r}: {scheme or 'no scheme'!r} is not allowed, only {allowed}"
        )


def _opener(schemes: tuple[str, ...]) -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    unknown = [scheme for scheme in schemes if scheme not in _HANDLERS]
    if unknown:
        raise InputDataError(
            f"downloads over {unknown[0]!r} are not supported; use {', '.join(_HANDLERS)}"
        )
    for scheme in schemes:
        opener.add_handler(_HANDLERS[scheme]())
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    opener.add_handler(_Redirects(schemes))
    return opener


def _transfer(opener: urllib.request.OpenerDirector, url: str, part: Path) -> None:
    """One connection: append to the part where the server vouches that the file is the same."""
    note = part.with_name(part.name + ".json")
    # the opener knows only the schemes that are allowed
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310
    start = part.stat().st_size if part.exists() else 0
    known = _read_note(note)
    if start and known.get("url") == url and known.get("validator"):
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", known["validator"])
    try:
        response = opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        _forget(part)  # the part is longer than the file: it is another file
        raise OSError("the file changed at its source") from None
    with response:
        resumed = getattr(response, "status", 200) == 206
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator and not validator.startswith("W/"):
            note.write_text(json.dumps({"url": url, "validator": validator}), "utf-8")
        else:
            note.unlink(missing_ok=True)
        length = response.headers.get("Content-Length")
        with part.open("ab" if resumed else "wb") as file:
            received = _copy(response, file)
            file.flush()
            os.fsync(file.fileno())
    if length is not None and received != int(length):
        raise OSError(f"the connection ended after {received:,} of {int(length):,} bytes")


def _copy(source: Any, target: IO[bytes]) -> int:
    received = 0
    while block := source.read(_BLOCK):
        target.write(block)
        received += len(block)
    return received


def _read_note(note: Path) -> dict[str, str]:
    try:
        values = json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".json").unlink(missing_ok=True)
