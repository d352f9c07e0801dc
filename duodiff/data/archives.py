"""Files inside folders, zips and tars, read in place by random access; nothing is extracted to disk.

An index holds names and byte ranges only (about 100 bytes a file), so it is small, and cheap to send
to another process.
"""

import os
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

MEMBER_LIMIT = 1 << 28
"""Bytes of the largest file accepted inside an archive: 256 MiB, more than any photograph."""

BOMB_RATIO, BOMB_FLOOR = 200, 1 << 30
"""A zip that claims more than BOMB_RATIO times its own size, and more than BOMB_FLOOR bytes, is refused."""

_PLAIN, _STORED, _DEFLATED = range(3)  # in a tar; in a zip, behind a local header


class Damaged(ValueError):
    """One file of an archive cannot be read, though the archive can."""


@dataclass(frozen=True)
class Members:
    """Files under `root` by their sorted `names`.

    `root` is a folder (`entries` None) or an archive (`entries` int64 [N, 5]: offset, stored bytes,
    bytes, CRC-32, kind).
    """

    root: Path
    names: list[str]
    entries: np.ndarray | None = None

    def take(self, indices: np.ndarray) -> "Members":
        """The files at `indices`, in that order."""
        names = [self.names[i] for i in indices]
        return Members(self.root, names, None if self.entries is None else self.entries[indices])

    def read(self, i: int) -> bytes:
        """Content of file i. Raises Damaged if its bytes are not what the archive declares."""
        if self.entries is None:
            return (self.root / self.names[i]).read_bytes()
        offset, stored, size, crc, kind = self.entries[i].tolist()
        with open(self.root, "rb") as file:
            file.seek(offset)
            if kind == _PLAIN:
                return file.read(stored)
            header = file.read(
                30
            )  # its last two fields are the lengths of what stands before the data
            if len(header) < 30 or header[:4] != b"PK\3\4":
                raise Damaged(f"{self.root}: {self.names[i]} has no local header")
            lengths = np.frombuffer(header[26:30], "<u2")
            file.seek(int(lengths.sum()), os.SEEK_CUR)
            data = file.read(stored)
        if kind == _DEFLATED:
            data = _inflate(data, size)
        if len(data) != size or zlib.crc32(data) != crc:
            raise Damaged(f"{self.root}: {self.names[i]} differs from its size or CRC")
        return data


def _inflate(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-15).decompress(data, max(size, 1))  # 0 would mean no limit
    except zlib.error as error:
        raise Damaged(str(error)) from error


def open_members(path: Path) -> Members:
    """The files of a folder, zip or uncompressed tar, whatever they are.

    Raises ValueError, naming the archive and the member, for absolute names, "..", links, devices,
    encryption, bombs (see MEMBER_LIMIT, BOMB_RATIO) and archives cut short.
    """
    if path.is_dir():
        return Members(path, sorted(_walk(path)))
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            return _index(path, _zip_entries(path))
        file.seek(0)
        found = ((m.name, _tar_entry(m)) for _, m in tar_members(path, file))
        return _index(path, found)


def open_nested_tar(path: Path) -> Members:
    """The files of the tars in an uncompressed tar, `a/b` being member b of a.tar; other members are left out.

    Raises as `open_members` does.
    """

    def entries(file: BinaryIO) -> Iterator[tuple[str, tuple]]:
        for outer, member in tar_members(path, file):
            if not member.name.endswith(".tar"):
                continue
            with outer.extractfile(member) as opened:
                for _, inner in tar_members(path / member.name, opened):
                    entry = _tar_entry(inner, member.offset_data)
                    yield f"{member.name.removesuffix('.tar')}/{inner.name}", entry

    with open(path, "rb") as file:
        return _index(path, entries(file))


def tar_members(path: Path, file: BinaryIO) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each plain file of the uncompressed tar open as `file`, with the archive to read it from.

    `path` is its name in errors. Raises ValueError as `open_members` does.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # tarfile remembers every member, a kilobyte each
                _safe_name(path, member.name)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise ValueError(f"{path}: {member.name} is a link or device; refused")
                yield archive, member
            file.seek(archive.offset)
            if file.read(512) != bytes(512):  # tarfile takes a broken header for the end
                raise ValueError(f"{path}: damaged or cut short at byte {archive.offset}")
    except tarfile.TarError as error:
        raise ValueError(f"{path}: neither a zip nor a whole uncompressed tar ({error})") from error


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):
                raise ValueError(f"{parent}/{name} is a link to a folder; put the folder there")
        prefix = os.path.relpath(parent, folder)
        yield from files if prefix == "." else (f"{prefix}/{name}" for name in files)


def _raise(error: OSError) -> None:
    raise error


def _tar_entry(member: tarfile.TarInfo, start: int = 0) -> tuple:
    return start + member.offset_data, member.size, member.size, 0, _PLAIN


def _zip_entries(path: Path) -> Iterator[tuple[str, tuple]]:
    kinds = {zipfile.ZIP_STORED: _STORED, zipfile.ZIP_DEFLATED: _DEFLATED}
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: damaged or cut short ({error})") from error
    claimed, limit = sum(i.file_size for i in infos), BOMB_RATIO * path.stat().st_size
    if claimed > max(limit, BOMB_FLOOR):
        raise ValueError(
            f"{path}: claims {claimed} bytes, over {BOMB_RATIO} times its size; refused as a bomb"
        )
    for info in infos:
        _safe_name(path, info.filename)
        file_type = info.external_attr >> 28  # of the Unix mode: 0 unknown, 4 a folder, 8 a file
        if info.is_dir():
            continue
        if file_type not in (0, 8):
            raise ValueError(f"{path}: {info.filename} is a link or device; refused")
        if info.flag_bits & 1 or info.compress_type not in kinds:
            raise ValueError(f"{path}: {info.filename} is encrypted or not stored or deflated")
        kind = kinds[info.compress_type]
        yield (
            info.filename,
            (info.header_offset, info.compress_size, info.file_size, info.CRC, kind),
        )


def _parts(name: str) -> list[str]:
    return name.replace("\\", "/").split("/")


def _safe_name(path: Path, name: str) -> None:
    parts = _parts(name)
    if parts[0] == "" or parts[0].endswith(":") or ".." in parts:
        raise ValueError(f"{path}: {name!r} leads out of the archive; refused")


def _index(path: Path, found: Iterator[tuple[str, tuple]]) -> Members:
    """Members of an archive from (name, entry) pairs, sorted by name."""
    names, entries = [], array("q")
    for name, entry in found:
        if max(entry[1:3]) > MEMBER_LIMIT:
            raise ValueError(
                f"{path}: {name} has {max(entry[1:3])} bytes; accepted: up to {MEMBER_LIMIT}"
            )
        names.append("/".join(part for part in _parts(name) if part not in ("", ".")))
        entries.extend(entry)
    order = sorted(range(len(names)), key=names.__getitem__)
    names = [names[i] for i in order]
    for name, following in pairwise(names):
        if name == following:
            raise ValueError(f"{path}: {name} is there twice")
    return Members(path, names, np.array(entries, np.int64).reshape(-1, 5)[order])
