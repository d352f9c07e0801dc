"""Folders, zips and tars: what is read from them, and what is refused."""

import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib

import pytest
from PIL import Image
from unit.image_files import (
    IMAGES,
    encoded,
    noise,
    packed,
    png,
    write_folder,
    write_tar,
    write_zip,
)

from duodiff.data import archives
from duodiff.data.archives import open_members
from duodiff.data.decode import EXTENSIONS


def test_folder_zip_and_tar_hold_the_same_dataset(tmp_path):
    files = {f"{'ab'[i % 2]}/{i}.png": png() for i in range(6)}
    write_folder(tmp_path / "folder", files)
    write_zip(tmp_path / "images.zip", dict(reversed(files.items())))
    write_tar(tmp_path / "images.tar", {f"./{name}": content for name, content in files.items()})
    manifests = [
        packed(IMAGES | {"path": path}, tmp_path).manifest
        for path in ("folder", "images.zip", "images.tar")
    ]
    assert manifests[0] == manifests[1] == manifests[2]


@pytest.mark.parametrize(
    ("prefixes", "class_names"),
    [
        (["cat/", "dog/"], ["cat", "dog"]),
        (["all/cat/", "all/dog/x/"], ["cat", "dog"]),  # a wrapper around everything is no class
        (["all/"], []),
        (["", "dog/"], []),
        ([""], []),
    ],
)
def test_classes_are_the_first_level_folders_if_every_image_is_in_one(
    tmp_path, prefixes, class_names
):
    files = {f"{prefix}{i}.png": png() for prefix in prefixes for i in range(3)}
    write_zip(tmp_path / "images.zip", files)
    store = packed(IMAGES | {"path": "images.zip"}, tmp_path)
    assert store.manifest["class_names"] == class_names
    assert store.num_classes == (len(class_names) or -1)
    expected = [i for i, _ in enumerate(class_names) for _ in range(3)] or [-1] * len(files)
    assert sorted(store.labels) == expected


def test_other_files_are_ignored_and_counted(tmp_path):
    names = (".hidden.png", "__MACOSX/a.png", ".git/b.png", "notes.txt", "Thumbs.db")
    files = dict.fromkeys(names, b"x") | {"A.JPG": encoded(noise(), "JPEG"), "b.tiff": png()}
    write_folder(tmp_path / "images", files)
    store = packed(IMAGES, tmp_path)
    assert (len(store), store.manifest["ignored"]) == (2, 5)
    by_name = {"*.txt": 1, ".*": 1, ".git": 1, "Thumbs.db": 1, "__MACOSX": 1}
    assert store.manifest["ignored_by_name"] == by_name
    write_zip(tmp_path / "none.zip", {"notes.txt": b"x"})
    with pytest.raises(
        ValueError,
        match=r"none\.zip: found no image among 1 files; 1 ignored as \*\.txt; accepted: \.jpg",
    ):
        packed(IMAGES | {"path": "none.zip"}, tmp_path)


def test_every_extension_that_is_accepted_is_decoded(tmp_path):
    kinds = {e: Image.registered_extensions().get(e, "PPM") for e in EXTENSIONS}
    assert {".jfif", ".avif"} < kinds.keys()
    files = {f"{kind}{e}": encoded(noise(), kind) for e, kind in kinds.items()}
    write_folder(tmp_path / "images", files | {"shouted.JFIF": encoded(noise(), "JPEG")})
    store = packed(IMAGES, tmp_path)
    assert (len(store), store.manifest["skipped"]) == (len(EXTENSIONS) + 1, {})


def test_without_its_decoder_avif_is_skipped_by_name(tmp_path, monkeypatch):
    others = tuple(e for e in EXTENSIONS if e != ".avif")
    monkeypatch.setattr("duodiff.data.images.EXTENSIONS", others)
    write_folder(tmp_path / "images", {"1.avif": b"x", "2.png": png(), "3.png": png()})
    skipped = packed(IMAGES, tmp_path).manifest["skipped"]
    assert skipped == {"unsupported": {"count": 1, "names": ["1.avif"]}}


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_pictures_that_are_not_decoded_are_skipped_by_name_and_are_no_class(
    tmp_path, write, caplog
):
    """They take no part in the order: the other images are packed as if the pictures were not there."""
    images = {f"{c}/{i}.png": png() for c in "ab" for i in range(4)}
    photos = dict.fromkeys(["a/1.HEIC", "a/2.heif", "b/3.jxl", "phone/4.heic", "b/5.CR2"], b"x")
    write(tmp_path / "plain", images)
    write(tmp_path / "photos", images | photos | {"b/.6.heic": b"x", "notes.txt": b"x"})
    plain = packed(IMAGES | {"path": "plain"}, tmp_path).manifest
    caplog.clear()
    found = packed(IMAGES | {"path": "photos"}, tmp_path).manifest
    assert found["skipped"] == {"unsupported": {"count": 5, "names": sorted(photos)}}
    skipped = f"5 skipped as unsupported: {', '.join(sorted(photos))}"
    assert caplog.messages == ["no image that can be read in phone", skipped]
    assert found["images_sha256"] == plain["images_sha256"]
    assert (found["class_names"], found["count"], found["ignored"]) == (["a", "b"], 8, 2)


def test_without_any_image_the_pictures_that_are_not_decoded_are_named(tmp_path):
    write_folder(tmp_path / "images", {"a/1.heic": b"x", "notes.txt": b"x"})
    message = "found no image among 2 files; 1 skipped as unsupported: a/1.heic; 1 ignored as *.txt"
    with pytest.raises(ValueError, match=re.escape(message)):
        packed(IMAGES, tmp_path)


OUTSIDE = ["../a.png", "/etc/a.png", "a/../../b.png", "C:/a.png", "..\\a.png"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_members_that_lead_out_of_an_archive_are_refused(tmp_path, write, name):
    path = write(tmp_path / "x.archive", {"good.png": png(), name: png()})
    with pytest.raises(ValueError, match="leads out of the archive; refused") as error:
        open_members(path)
    assert str(error.value).startswith(f"{path}: {name!r}")


def test_a_zip_of_any_writer_reads_as_zipfile_reads_it(tmp_path):
    path = tmp_path / "odd.zip"
    path.write_bytes(b"PKSFX, a stub before it")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"PK of a comment"
        archive.writestr("b/é.png", b"utf-8 name")
        archive.mkdir("folder")
        with archive.open("a/large.png", "w", force_zip64=True) as member:
            member.write(bytes(999))
    members = open_members(path)
    with zipfile.ZipFile(path) as archive:
        assert [(m.name, m.read()) for m in members] == [
            (name, archive.read(name)) for name in ("a/large.png", "b/é.png")
        ]


@pytest.mark.slow
def test_a_zip_of_more_than_65535_files_has_them_all(tmp_path):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for i in range(66_000):
            archive.writestr(f"{i}.png", b"")
    assert len(open_members(tmp_path / "many.zip")) == 66_000


def test_64_bit_numbers_stand_in_the_extra_fields():
    # Size and offset do not fit 32 bits, the stored bytes do; another field stands before.
    extra = struct.pack("<2HL", 0x5455, 4, 7) + struct.pack("<2H2Q", 1, 16, 5 << 32, 6 << 32)
    found = archives._in_64_bits(extra, [0xFFFFFFFF, 10, 0xFFFFFFFF])
    assert found == [5 << 32, 10, 6 << 32]


def test_links_and_devices_in_archives_are_refused(tmp_path):
    for kind in "12346S":  # tar's letters: hard and symbolic link, devices, fifo, sparse file
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            member = tarfile.TarInfo("odd.png")
            member.type, member.linkname = kind.encode(), "/etc/passwd"
            archive.addfile(member)
        with pytest.raises(ValueError, match=r"x\.tar: odd\.png is a link or device; refused"):
            open_members(tmp_path / "x.tar")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        member = zipfile.ZipInfo("odd.png")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(ValueError, match=r"x\.zip: odd\.png is a link or device; refused"):
        open_members(tmp_path / "x.zip")


def test_a_link_to_a_folder_is_not_passed_over_silently(tmp_path):
    write_folder(tmp_path, {"images/a/1.png": png(), "elsewhere/1.png": png()})
    os.symlink(tmp_path / "elsewhere", tmp_path / "images/b")
    with pytest.raises(ValueError, match=r"images/b is a link to a folder"):
        open_members(tmp_path / "images")


def test_bombs_are_refused(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "x.zip", {f"{i}.png": bytes(100_000) for i in range(10)})
    assert len(open_members(path)) == 10  # below the floor it may be as compressible as it likes
    monkeypatch.setattr(archives, "BOMB_FLOOR", 999_999)
    with pytest.raises(
        ValueError, match=r"x\.zip: claims 1000000 bytes or more, over 200 times its size"
    ):
        open_members(path)
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 99_999)
    tar = write_tar(tmp_path / "x.tar", {"0.png": bytes(100_000)})
    with pytest.raises(ValueError, match=r"x\.tar: 0\.png has 100000 bytes; accepted: up to 99999"):
        open_members(tar)


def test_a_member_that_inflates_beyond_its_size_is_corrupt(tmp_path):
    path = write_zip(tmp_path / "images.zip", {f"{i}.png": png() for i in range(3)})
    content = bytearray(path.read_bytes())
    size_field = content.rindex(b"PK\1\2") + 24  # of the last central header, which is believed
    content[size_field : size_field + 4] = struct.pack("<I", 10)
    path.write_bytes(content)
    with pytest.raises(archives.Damaged, match=r"2\.png differs from its size or CRC"):
        open_members(path)[2].read()
    assert len(archives._inflate(zlib.compress(bytes(999), wbits=-15), 0)) <= 1
    store = packed(IMAGES | {"path": "images.zip"}, tmp_path)
    assert store.manifest["skipped"] == {"corrupt": {"count": 1, "names": ["2.png"]}}


@pytest.mark.parametrize("position", [3, 60])  # in the local header, in the compressed data
def test_damage_to_one_member_costs_that_image_only(tmp_path, position):
    path = write_zip(tmp_path / "images.zip", {f"{i}.png": png(20) for i in range(3)})
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    store = packed(IMAGES | {"path": "images.zip"}, tmp_path)
    assert store.manifest["skipped"] == {"corrupt": {"count": 1, "names": ["0.png"]}}


def test_archives_cut_short_compressed_or_encrypted_are_refused(tmp_path):
    files = {f"{i}.png": png(40) for i in range(3)}
    archive = write_zip(tmp_path / "x.zip", files)
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"x\.zip: damaged or cut short"):
        open_members(archive)
    whole = write_tar(tmp_path / "x.tar", files).read_bytes()
    for end in (700, 1000, 512 * 11 + 100, whole.rindex(b"2.png")):
        (tmp_path / "x.tar").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"x\.tar: .*(cut short|whole uncompressed tar)"):
            open_members(tmp_path / "x.tar")
    write_tar(tmp_path / "x.tgz", files, "w:gz")
    with pytest.raises(ValueError, match=r"x\.tgz: neither a zip nor a whole uncompressed tar"):
        open_members(tmp_path / "x.tgz")
    archive = write_zip(tmp_path / "x.zip", {"a.png": png()})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.zip: a\.png is encrypted or not stored or deflated"):
        open_members(archive)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    write_tar(tmp_path / "x.tar", {"a.png": b"old", "./a.png": b"new"})
    with pytest.raises(ValueError, match=r"x\.tar: a\.png is there twice"):
        open_members(tmp_path / "x.tar")
