"""Files inside folders, zips and tars, read in place by random access. Nothing is extracted to disk.

Names and byte ranges of the files are kept in a temporary database (`duodiff.data.disk`). So memory does not grow with
the number of files; Python's own reader of zips takes 0.6 kB a file.
"""

import os
import re
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import compress
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from duodiff.data.disk import database
from duodiff.data.folders import walk

MEMBER_LIMIT = 1 << 28
"""Bytes of the largest file accepted inside an archive: 256 MiB. No photograph is larger."""

BOMB_RATIO, BOMB_FLOOR = 200, 1 << 30
"""A zip is refused if its files claim more than BOMB_FLOOR bytes and more than BOMB_RATIO times the zip's size."""

_PLAIN, _STORED, _DEFLATED = range(3)  # kinds of entry: of a tar; of a zip, as it is; compressed


class Damaged(ValueError):
    """One file of an archive cannot be read, though the archive can."""


class Entry(NamedTuple):
    """Where a file lies in an archive.

    `offset` is the position of its first byte; in a zip, of its local header. `stored` is the number of its bytes in
    the archive, `size` their number once decompressed. `crc` is its CRC-32, `kind` one of _PLAIN, _STORED, _DEFLATED.
    """

    offset: int
    stored: int
    size: int
    crc: int
    kind: int


class Member(NamedTuple):
    """The file `name` in `root`: a folder (`entry` is None) or an archive.

    `problem` says why a file of a folder cannot be read (`duodiff.data.folders`).
    """

    root: Path
    name: str
    entry: Entry | None
    problem: str | None = None

    def read(self) -> bytes:
        """Content of the file. Raises Damaged if its bytes are not what the archive declares."""
        if self.entry is None:
            return (self.root / self.name).read_bytes()
        offset, stored, size, crc, kind = self.entry
        with open(self.root, "rb") as file:
            file.seek(offset)
            if kind == _PLAIN:
                return file.read(stored)
            # The header ends with the lengths of two fields that stand before the data.
            header = file.read(30)
            if len(header) < 30 or header[:4] != b"PK\3\4":
                raise Damaged(f"{self.root}: {self.name} has no local header")
            file.seek(sum(struct.unpack("<2H", header[26:])), os.SEEK_CUR)
            data = file.read(stored)
        if kind == _DEFLATED:
            data = _inflate(data, size)
        if len(data) != size or zlib.crc32(data) != crc:
            raise Damaged(f"{self.root}: {self.name} differs from its size or CRC")
        return data


class Members:
    """The files of `root`, a folder or an archive, in the order of their names."""

    def __init__(self, root: Path, members: Iterable[Member]):
        """Takes `members` in any order. Raises ValueError if a name is there twice."""
        self.root = root
        self._index = database()
        self._index.execute(
            "CREATE TABLE unsorted (name, problem, offset, stored, size, crc, kind)"
        )
        rows = ((os.fsencode(m.name), m.problem, *(m.entry or [None] * 5)) for m in members)
        self._index.executemany("INSERT INTO unsorted VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._index.execute("CREATE TABLE member AS SELECT * FROM unsorted ORDER BY name")
        self._index.execute("DROP TABLE unsorted")
        repeated = (
            "SELECT a.name FROM member a JOIN member b ON b.rowid = a.rowid + 1 AND b.name = a.name"
        )
        for (name,) in self._index.execute(repeated):
            raise ValueError(f"{root}: {os.fsdecode(name)} is there twice")
        self._len = self._index.execute("SELECT count(*) FROM member").fetchone()[0]

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Member]:
        return map(self._member, self._index.execute("SELECT * FROM member ORDER BY rowid"))

    def __getitem__(self, i: int) -> Member:
        row = self._index.execute("SELECT * FROM member WHERE rowid = ?", (int(i) + 1,)).fetchone()
        return self._member(row)

    def _member(self, row: tuple) -> Member:
        name, problem, *numbers = row
        entry = None if numbers[0] is None else Entry(*numbers)
        return Member(self.root, os.fsdecode(name), entry, problem)

    def names(self) -> Iterator[str]:
        """Every name, sorted by its bytes."""
        return (os.fsdecode(name) for (name,) in self._index.execute("SELECT name FROM member"))

    def select(self, chosen: Iterable[bool]) -> "Members":
        """The members for which `chosen` is true; `chosen` has a value for each member, in their order."""
        return Members(self.root, compress(self, chosen))


def _inflate(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-15).decompress(data, max(size, 1))  # 0 would mean no limit
    except zlib.error as error:
        raise Damaged(str(error)) from error


def open_members(path: Path) -> Members:
    """All files of a folder, a zip or an uncompressed tar.

    Raises ValueError, naming the archive and the member, for absolute names, "..", links, devices, encrypted files,
    bombs (see MEMBER_LIMIT, BOMB_RATIO) and archives cut short.
    """
    if path.is_dir():
        return Members(path, (Member(path, name, None, problem) for name, problem in walk(path)))
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            return Members(path, _archived(path, _zip_entries(path, file)))
        file.seek(0)
        entries = ((m.name, _tar_entry(m)) for _, m in tar_members(path, file))
        return Members(path, _archived(path, entries))


def open_nested_tar(path: Path) -> Members:
    """The files of the tars inside an uncompressed tar: `a/b` is member b of a.tar. Other members are left out.

    Raises ValueError as `open_members` does.
    """

    def entries(file: BinaryIO) -> Iterator[tuple[str, Entry]]:
        for outer, member in tar_members(path, file):
            if not member.name.endswith(".tar"):
                continue
            opened = outer.extractfile(member)
            assert opened is not None  # a plain file has content
            with opened:
                for _, inner in tar_members(path / member.name, opened):
                    entry = _tar_entry(inner, member.offset_data)
                    yield f"{member.name.removesuffix('.tar')}/{inner.name}", entry

    with open(path, "rb") as file:
        return Members(path, _archived(path, entries(file)))


def tar_members(path: Path, file: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yields each plain file of the uncompressed tar `file`, with the open archive to read it from.

    `path` is the name of the tar in errors. Raises ValueError as `open_members` does.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile remembers every member, a kilobyte each
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


def _tar_entry(member: tarfile.TarInfo, start: int = 0) -> Entry:
    return Entry(start + member.offset_data, member.size, member.size, 0, _PLAIN)


# Records of a zip (PKWARE's APPNOTE.TXT 4.3), by their signatures.
_HEADER = struct.Struct("<4s6H3L5H2L")  # PK 1 2: one for each file, whose name follows
_END = struct.Struct("<4s4H2LH")  # PK 5 6: the last record; a comment follows
_LOCATOR = struct.Struct("<4sLQL")  # PK 6 7: before the last one if a number needs 64 bits
_END64 = struct.Struct("<4sQ2H2L4Q")  # PK 6 6: the last record in 64 bits; the locator points to it
_COMMENT = 1 << 16  # more bytes than the longest comment has


def _zip_entries(path: Path, file: BinaryIO) -> Iterator[tuple[str, Entry]]:
    try:
        yield from _zip_directory(path, file)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged or cut short ({error})") from error


def _zip_directory(path: Path, file: BinaryIO) -> Iterator[tuple[str, Entry]]:
    """Every file in the directory at the end of a zip, one record at a time: zipfile's own list takes memory."""
    kinds, claimed = {0: _STORED, 8: _DEFLATED}, 0
    limit = max(BOMB_RATIO * path.stat().st_size, BOMB_FLOOR)
    count, shift = _to_directory(path, file)
    for _ in range(count):
        signature, _, _, flags, method, _, _, crc, stored, size, *lengths, _, _, mode, offset = (
            _HEADER.unpack(file.read(_HEADER.size))
        )
        if signature != b"PK\1\2":
            raise ValueError(f"{path}: damaged or cut short (no header at byte {file.tell()})")
        name = file.read(lengths[0]).decode("utf-8" if flags & 0x800 else "cp437")
        size, stored, offset = _in_64_bits(file.read(lengths[1]), [size, stored, offset])
        file.seek(lengths[2], os.SEEK_CUR)
        claimed += size
        if claimed > limit:
            raise ValueError(
                f"{path}: claims {claimed} bytes or more, over {BOMB_RATIO} times its size; refused as"
                " a bomb"
            )
        _safe_name(path, name)
        file_type = mode >> 28  # of the Unix mode: 0 unknown, 4 a folder, 8 a file
        if name.endswith("/"):
            continue
        if file_type not in (0, 8):
            raise ValueError(f"{path}: {name} is a link or device; refused")
        if flags & 1 or method not in kinds:
            raise ValueError(f"{path}: {name} is encrypted or not stored or deflated")
        yield name, Entry(offset + shift, stored, size, crc, kinds[method])


def _to_directory(path: Path, file: BinaryIO) -> tuple[int, int]:
    """The number of records, and the number of bytes before the zip begins. Moves `file` to the first record."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - _END.size - _COMMENT, 0))
    start = file.tell()
    last = (tail := file.read()).rfind(b"PK\5\6")
    if last < 0:
        raise ValueError(f"{path}: damaged or cut short (it has no directory)")
    *_, count, length, first, _ = _END.unpack_from(tail, last)
    end = start + last
    if tail[max(last - _LOCATOR.size, 0) :].startswith(b"PK\6\7"):
        _, _, position, _ = _LOCATOR.unpack_from(tail, last - _LOCATOR.size)
        file.seek(position)
        signature, *_, count, length, first = _END64.unpack(file.read(_END64.size))
        if signature != b"PK\6\6":
            raise ValueError(f"{path}: damaged or cut short (no directory at byte {position})")
        end = position
    shift = end - length - first
    if shift < 0:
        raise ValueError(f"{path}: damaged or cut short (the directory is longer than the file)")
    file.seek(first + shift)
    return count, shift


def _in_64_bits(extra: bytes, numbers: list[int]) -> list[int]:
    """The numbers of a header. Numbers that do not fit 32 bits are read from the header's extra fields."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, 4))
            return [next(wide, n) if n == 0xFFFFFFFF else n for n in numbers]
        extra = extra[4 + length :]
    return numbers


def _parts(name: str) -> list[str]:
    return name.replace("\\", "/").split("/")


def _safe_name(path: Path, name: str) -> None:
    parts = _parts(name)
    if parts[0] == "" or re.fullmatch("[A-Za-z]:", parts[0]) or ".." in parts:
        raise ValueError(f"{path}: {name!r} leads out of the archive; refused")


def _archived(path: Path, entries: Iterator[tuple[str, Entry]]) -> Iterator[Member]:
    """The members of an archive, from their names and entries."""
    for name, entry in entries:
        if max(entry.stored, entry.size) > MEMBER_LIMIT:
            raise ValueError(
                f"{path}: {name} has {max(entry.stored, entry.size)} bytes; accepted: up to"
                f" {MEMBER_LIMIT}"
            )
        clean = "/".join(part for part in _parts(name) if part not in ("", "."))
        yield Member(path, clean, entry)
