"""The files of a folder, and which of them cannot be read: known before any is opened."""

import os
from collections.abc import Iterator
from pathlib import Path

from duodiff.clutter import clutter


def walk(root: Path) -> Iterator[tuple[str, str | None]]:
    """Name of each file below `root`, in any order, and why it cannot be read (None if it can).

    - `broken link`: what it links to is missing, or it links to itself
    - `link back into the folder`: to a folder in `root` or around it, which would be read twice or without end
    - `no plain file`: a pipe, a socket or a device

    Raises ValueError for a link to another folder, PermissionError for a folder that may not be read. Below a name of
    `duodiff.clutter` there is no error.
    """
    yield from _below(os.fspath(root), "", os.path.realpath(root))


def _below(folder: str, prefix: str, root: str) -> Iterator[tuple[str, str | None]]:
    try:
        entries = os.scandir(folder)
    except PermissionError:
        if clutter(prefix) is None:
            raise
        yield prefix.rstrip("/"), None
        return
    with entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, f"{name}/", root)
            else:
                yield name, None if clutter(name) else _problem(entry, root)


def _problem(entry: os.DirEntry, root: str) -> str | None:
    try:
        if entry.is_file():
            return None
        folder = entry.is_dir()
    except OSError:  # a circle of links, or a place that may not be looked into
        return "broken link"
    if not folder:
        return "no plain file" if os.path.exists(entry.path) else "broken link"
    target = os.path.realpath(entry.path)
    if os.path.commonpath([target, root]) in (target, root):
        return "link back into the folder"
    raise ValueError(f"{entry.path} is a link to a folder; put the folder there")
