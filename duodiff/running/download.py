"""Downloads that are resumed and verified, and the error where a file is missing (no torch)."""

import os
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from duodiff.running.files import naming_full_disk, require_space
from duodiff.running.files import sha256 as digest

_TIMEOUT_S = 60
_CHUNK = 1 << 20


def require(path: Path, page: str) -> Path:
    """Returns `path` if it exists.

    Raises FileNotFoundError if it does not: the message names `path` and the `page` where the file is found. Raises
    ValueError as `refuse_stand_in` does.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; put it there yourself: it is found at {page}")
    refuse_stand_in(path)
    return path


def refuse_stand_in(path: Path, name: str | None = None) -> None:
    """Raises ValueError, with `name` or the path, for an HTML page or a git-lfs pointer in place of a file.

    Reads the first bytes alone. A folder passes.
    """
    if path.is_dir():
        return
    with open(path, "rb") as opened:
        head = opened.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        raise ValueError(f"{name or path}: found an HTML page in place of the file")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise ValueError(
            f"{name or path}: found a git-lfs pointer in place of the file; `git lfs pull` in its"
            " repository fetches the file"
        )


def fetch(url: str, path: Path, sha256: str | None) -> None:
    """Makes sure that the file at `url` is at `path` with the hash `sha256` (None: not verified).

    A file that is already at `path` is only verified. A download is written to a file beside `path` that ends in
    `.partial`. The next call continues an interrupted download. A complete and verified download is renamed to `path`.

    Raises ValueError for a wrong hash, or as `refuse_stand_in` does. A complete download that fails
    verification is removed; a file at `path` never is. Raises OSError naming `path` and `url` if the network fails.
    """
    if path.exists():
        _verify(path, path.name, sha256)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        _download(url, partial)
    except (OSError, HTTPException) as error:
        raise OSError(
            f"{path} cannot be downloaded ({error}); run again to continue, or put it there"
            f" yourself: it is found at {url}"
        ) from error
    try:
        _verify(partial, path.name, sha256)
    except ValueError:
        partial.unlink()
        raise
    os.replace(partial, path)


def _download(url: str, partial: Path) -> None:
    """Appends the missing bytes of the file at `url` to `partial`. Starts anew if the server cannot resume."""
    have = partial.stat().st_size if partial.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code != 416:
            raise
        if _total(error.headers) != have:  # `partial` belongs to another file
            partial.unlink()
            _download(url, partial)
        return  # 416: no byte is missing
    with response:
        if response.headers.get_content_type() == "text/html":  # before `partial` is overwritten
            raise ValueError(f"{url}: an HTML page in place of {partial.stem}")
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if resumed else 0
        total = done + int(response.headers["Content-Length"] or 0)
        bar = tqdm(
            desc=partial.stem,
            total=total or None,
            initial=done,
            unit="B",
            unit_scale=True,
            disable=None,
        )
        require_space(partial.parent, total - done, "the download")
        with naming_full_disk(partial), open(partial, "ab" if resumed else "wb") as file, bar:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    size = partial.stat().st_size
    if size < total:  # http.client does not report a connection that ends early
        raise OSError(f"cut off after {size} of {total} bytes")


def _total(headers) -> int:
    """The file's size in the header `Content-Range: bytes */SIZE`, -1 without the header."""
    size = headers.get("Content-Range", "").rpartition("/")[2]
    return int(size) if size.isdecimal() else -1


def _verify(file: Path, name: str, sha256: str | None) -> None:
    """Raises ValueError, with `name`, if `file` stands in for another or has another hash than `sha256`."""
    refuse_stand_in(file, name)
    if sha256 is not None and (actual := digest(file)) != sha256:
        raise ValueError(f"{name}: found sha256 {actual}, expected {sha256}")
