"""Datasets into stores: every family, every kind of bad input with its message, and real images."""

import gzip
import io
import os
import pickle
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from duodiff.data import archives, cifar10
from duodiff.data.archives import open_members, open_nested_tar
from duodiff.data.decode import Decoded, Transform, decode
from duodiff.data.families import fetch_dataset
from duodiff.data.pack import pack
from duodiff.data.store import ImageStore

ROOT = Path(__file__).parents[3]
REAL = ROOT.parent / "shared/data/cifar10-test-jpeg.zip"
RNG = np.random.default_rng(0)
SIZE = 5

IMAGES = {
    "source": "images",
    "path": "images",
    "crop": "square",
    "size": SIZE,
    "filter": "box",
    "channels": 3,
    "held_out": 1,
}
CELEBA = {
    "source": "celeba",
    "path": "celeba",
    "split": "all",
    "crop": "celeba_128",
    "size": 128,
    "filter": "box",
    "held_out": 1,
}
IMAGENET = IMAGES | {"source": "imagenet", "path": "imagenet", "class_order": "synset"}
CIFAR10 = {"source": "cifar10", "path": "cifar10", "held_out": 2}


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size: int = SIZE, mode: str = "RGB") -> Image.Image:
    shape = (size, size, len(mode)) if len(mode) > 1 else (size, size)
    return Image.fromarray(RNG.integers(0, 256, shape).astype(np.uint8), mode)


def png(size: int = SIZE) -> bytes:
    return encoded(noise(size))


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def packed(dataset: dict, data: Path, workers: int = 1) -> ImageStore:
    manifest = data / f"store{workers}/manifest.json"
    pack(dataset, data, workers, manifest)
    return ImageStore(manifest)


# --- packing


def test_the_store_does_not_depend_on_the_workers(tmp_path, monkeypatch):
    """Byte for byte, with skipped and converted images and more chunks than are in flight; as np.save's."""
    monkeypatch.setattr("duodiff.data.pack._CHUNK", 10)
    files = {f"{'ab'[i % 2]}/{i:03}.png": png() for i in range(150)}
    files |= {"a/007.png": b"\x89PNG\r\n\x1a\nbroken", "b/130.png": encoded(noise(mode="L"))}
    write_zip(tmp_path / "images.zip", files)
    dataset = IMAGES | {"path": "images.zip", "held_out": 20}
    store = packed(dataset, tmp_path)
    packed(dataset, tmp_path, workers=2)
    for name in ("images.npy", "labels.npy", "manifest.json"):
        one, two = (tmp_path / f"store{workers}" / name for workers in (1, 2))
        assert one.read_bytes() == two.read_bytes(), name
    assert store.manifest["skipped"] == {"corrupt": {"count": 1, "names": ["a/007.png"]}}
    assert store.manifest["converted"] == {"grey": 1}
    np.save(tmp_path / "saved.npy", np.array(store.images))
    assert (tmp_path / "saved.npy").read_bytes() == (tmp_path / "store1/images.npy").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["images", "celeba"])
def test_ten_times_the_images_take_a_few_numbers_more(tmp_path, monkeypatch, family):
    """But for some numbers of 8 bytes an image, where a name alone would take 50 bytes and its place 600."""
    few, many = 500, 5000

    def decoded(images, _):  # for true decoding takes longer; of every six one is skipped
        skip = [int(Path(image.name).stem) % 6 == 0 for image in images]
        return [Decoded(None, skipped="corrupt") if s else Decoded(pixels) for s in skip]

    pixels = np.zeros((3, 4, 4), np.uint8)
    monkeypatch.setattr("duodiff.data.pack.decode_all", decoded)
    # What has a fixed size would hide much.
    monkeypatch.setattr("duodiff.data.store.sha256", lambda _: "")
    monkeypatch.setattr("duodiff.data.archives._COMMENT", 0)
    monkeypatch.setattr("duodiff.data.pack._CHUNK", 8)
    peaks = []
    for n in (few // 2, few, many):  # the first time modules and caches fill
        data = tmp_path / str(n)
        dataset = many_images(data, family, n)
        tracemalloc.start()
        manifest = pack(dataset, data, 1, data / "store/manifest.json")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert manifest["skipped"]["corrupt"]["count"] >= n // 6
    assert peaks[2] - peaks[1] < 8 * 8 * (many - few)


def many_images(data: Path, family: str, n: int) -> dict:
    """Writes a zip of `n` files that are called images, in any order; their dataset."""
    files = {f"{i % 7}/{i}.jpg": str(i).encode() for i in range(n)}
    if family == "images":
        write_zip(data / "images.zip", files)
        return IMAGES | {"path": "images.zip", "size": 4}
    celeba(data, files, "".join(f"{i}.jpg {i % 3}\n" for i in range(n)))
    return CELEBA | {"split": "train", "size": 4}


def test_images_and_labels_stay_together_in_the_fixed_order(tmp_path):
    pixels = {f"{'cab'[i % 3]}/{i}.png": noise() for i in range(12)}
    files = {name: encoded(image) for name, image in pixels.items()}
    write_folder(tmp_path / "images", files | {"c/3.png": b"broken"})
    store = packed(IMAGES | {"held_out": 5}, tmp_path)
    names = [sorted(pixels)[i] for i in np.random.default_rng(0).permutation(12)]
    names.remove("c/3.png")
    for image, label, name in zip(store.images, store.labels, names, strict=True):
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(pixels[name]))
        assert store.manifest["class_names"][label] == name[0]
    assert store.manifest["splits"] == {"train": [0, 6], "held_out": [6, 11]}


def test_the_digits_are_packed_as_they_always_were(tmp_path):
    manifest = packed({"source": "digits", "held_out": 360}, tmp_path).manifest
    assert manifest["images_sha256"].startswith("c56b01bc26224f446ec61c21fd2d1f99")
    assert manifest["labels_sha256"].startswith("5ed946ff8dd510afa25a7d5c3ce231a9")
    assert manifest["transform"] == "none"


def test_a_subset_is_the_start_of_the_training_order(tmp_path):
    write_folder(tmp_path / "images", {f"{i}.png": png() for i in range(9)})
    whole = packed(IMAGES | {"held_out": 2}, tmp_path)
    (train, _), (held_out, _) = whole.split("train"), whole.split("held_out")
    expected = [np.array(train[:3]), np.array(held_out)]
    part = packed(IMAGES | {"held_out": 2, "subset": 3}, tmp_path)
    for images, name in zip(expected, ("train", "held_out"), strict=True):
        assert np.array_equal(part.split(name)[0], images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": 0}, r"dataset.held_out: found 0; accepted: 1 to 3"),
        ({"held_out": 4}, r"dataset.held_out: found 4; accepted: 1 to 3"),
        ({"subset": 0}, r"dataset.subset: found 0; accepted: 1 to 3"),
        ({"held_out": 2, "subset": 3}, r"dataset.subset: found 3; accepted: 1 to 2"),
        (
            {"crop": "round"},
            r"dataset.crop: found 'round'; accepted: square, center_178, celeba_128",
        ),
        ({"filter": "nearest"}, r"dataset.filter: found 'nearest'; accepted: box, bilinear, "),
        ({"channels": 4}, r"dataset.channels: found 4; accepted: 1, 3"),
        ({"size": 0}, r"dataset.size: found 0; accepted: 1 or more"),
        ({"source": "mnist"}, r"dataset.source: 'mnist' is unknown; accepted: digits, cifar10, "),
    ],
)
def test_unusable_values_are_named(tmp_path, changes, message):
    write_folder(tmp_path / "images", {f"{i}.png": png() for i in range(4)})
    with pytest.raises(ValueError, match=message):
        pack(IMAGES | changes, tmp_path, 1, tmp_path / "out/manifest.json")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="workers: found 0; accepted: 1 or more"):
        pack(IMAGES, tmp_path, 0, tmp_path / "out/manifest.json")


# --- skipped images


def test_skipped_images_leave_no_holes_and_are_reported(tmp_path, caplog):
    images = {f"{i:02}.png": png() for i in range(30)}
    bad = {"bad.jpg": b"no image", "cut.png": png(64)[:-900], "small.png": png(SIZE - 1)}
    write_folder(tmp_path / "images", images | bad)
    store = packed(IMAGES | {"held_out": 10}, tmp_path)
    assert len(store) == len(store.labels) == 30
    assert store.manifest["splits"] == {"train": [0, 20], "held_out": [20, 30]}
    skipped = store.manifest["skipped"]
    assert skipped["tiny"] == {"count": 1, "names": ["small.png"]}
    assert set(skipped.pop("corrupt")["names"]) == {"bad.jpg", "cut.png"}
    assert "1 skipped as tiny: small.png" in caplog.messages
    assert len(caplog.messages) == 2


def test_many_skipped_images_are_counted_and_twenty_named(tmp_path):
    files = {f"{i:02}.png": b"" for i in range(30)} | {"x.png": png(), "y.png": png()}
    write_folder(tmp_path / "images", files)
    corrupt = packed(IMAGES, tmp_path).manifest["skipped"]["corrupt"]
    assert (corrupt["count"], len(corrupt["names"])) == (30, 20)


def test_too_few_usable_images_are_an_error_that_leaves_no_store(tmp_path):
    files = {f"{i}.png": png(1) for i in range(9)} | {"x.png": png()}
    write_folder(tmp_path / "images", files)
    message = "dataset.held_out: found 1, but only 1 of 10 images are usable"
    with pytest.raises(ValueError, match=message):
        packed(IMAGES, tmp_path)
    assert list((tmp_path / "store1").iterdir()) == []


def test_an_image_over_pillows_limit_is_skipped_as_a_bomb(monkeypatch):
    data = png(20)
    for limit in (399, 150):  # Pillow warns above its limit, and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert decode(data, Transform("square", 5, "box")).skipped == "bomb"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert decode(data, Transform("square", 5, "box")).skipped is None


def test_modes_without_a_fixed_range_are_unsupported():
    data = encoded(Image.new("F", (SIZE, SIZE), 0.5), "TIFF")
    assert decode(data, Transform("square", SIZE, "box")).skipped == "unsupported"


# --- conversions


def deep_png(colour_type: int, pixel: tuple[int, ...]) -> bytes:
    """A 16-bit PNG of one value, which Pillow reads but does not write (for colours)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, colour_type, 0, 0, 0)
    row = b"\0" + struct.pack(f">{len(pixel)}H", *pixel) * SIZE
    chunks = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * SIZE)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def flat(mode: str, colour) -> Image.Image:
    return Image.new(mode, (SIZE, SIZE), colour)


def palette(**options) -> bytes:
    image = flat("P", 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return encoded(image, **options)


def animation(kind: str, **options) -> bytes:
    frames = [flat("RGB", colour) for colour in ((255, 0, 0), (0, 255, 0))]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize(
    ("data", "colour", "converted"),
    [
        (encoded(flat("RGB", (10, 20, 30))), (10, 20, 30), ()),
        (encoded(flat("L", 77)), (77, 77, 77), ("grey",)),
        (encoded(flat("1", 1)), (255, 255, 255), ("grey",)),
        (palette(), (10, 20, 30), ("palette",)),
        (palette(transparency=1), (255, 255, 255), ("palette", "transparency")),
        (encoded(flat("CMYK", (0, 0, 0, 255)), "TIFF"), (0, 0, 0), ("cmyk",)),
        (
            encoded(flat("RGBA", (200, 0, 100, 51))),
            (244, 204, 224),
            ("transparency",),
        ),  # 0.2 opaque
        (encoded(flat("LA", (9, 0))), (255, 255, 255), ("grey", "transparency")),
        (deep_png(0, (0x4D99,)), (0x4D, 0x4D, 0x4D), ("16-bit", "grey")),
        (deep_png(2, (0x0A99, 0x1499, 0x1E00)), (10, 20, 30), ("16-bit",)),
        (animation("WEBP", lossless=True), (255, 0, 0), ("animated",)),
        (animation("GIF"), (255, 0, 0), ("animated", "palette")),
        (animation("TIFF"), (255, 0, 0), ("animated",)),
    ],
)
def test_each_mode_is_converted_and_counted(data, colour, converted):
    decoded = decode(data, Transform("square", SIZE, "box"))
    assert decoded.converted == converted
    assert decoded.pixels.shape == (3, SIZE, SIZE)
    np.testing.assert_array_equal(decoded.pixels[:, 2, 3], colour)


def test_a_cmyk_jpeg_has_the_colours_it_shows():
    data = encoded(flat("CMYK", (255, 0, 0, 0)), "JPEG", quality=100)
    decoded = decode(data, Transform("square", SIZE, "box"))
    assert decoded.converted == ("cmyk",)
    assert np.abs(decoded.pixels[:, 2, 3].astype(int) - (0, 255, 255)).max() <= 3


def test_one_channel_is_grey():
    grey = Transform("square", SIZE, "box", channels=1)
    image = noise(mode="L")
    decoded = decode(encoded(image), grey)
    assert decoded.converted == ()
    assert np.array_equal(decoded.pixels, np.asarray(image)[None])
    colour = decode(encoded(flat("RGB", (255, 0, 0))), grey)
    assert colour.converted == ("colour",)
    assert colour.pixels[0, 0, 0] == 76  # 0.299 red


def test_the_exif_orientation_is_applied():
    image, exif = noise(), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    decoded = decode(encoded(image, exif=exif), Transform("square", SIZE, "box"))
    assert decoded.converted == ("orientation",)
    assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.rot90(np.asarray(image), -1))


def test_unreadable_metadata_does_not_cost_the_image():
    image = noise()
    decoded = decode(encoded(image, exif=b"Exif\0\0nonsense"), Transform("square", SIZE, "box"))
    assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.asarray(image))


@pytest.mark.parametrize("size", [(11, 6), (6, 11)])
def test_the_square_crop_is_central_and_the_filter_pillows(size):
    image = Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3)).astype(np.uint8))
    left, top = (size[0] - 6) // 2, (size[1] - 6) // 2
    crop = image.crop((left, top, left + 6, top + 6))
    for name in ("box", "bilinear", "bicubic", "lanczos"):
        decoded = decode(encoded(image), Transform("square", 3, name))
        expected = crop.resize((3, 3), Image.Resampling[name.upper()])
        assert np.array_equal(decoded.pixels.transpose(1, 2, 0), np.asarray(expected))


# --- archives


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
    write_zip(tmp_path / "none.zip", {"notes.txt": b"x"})
    with pytest.raises(
        ValueError, match=r"none\.zip: found no image among 1 files; accepted: \.jpg"
    ):
        packed(IMAGES | {"path": "none.zip"}, tmp_path)


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
    write_folder(tmp_path / "images", {"a/1.png": png()})
    os.symlink(tmp_path, tmp_path / "images/b")
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


# --- CIFAR-10


def cifar_batch(n: int, **changes) -> bytes:
    data = RNG.integers(0, 256, (n, 3072)).astype(np.uint8)
    batch = {b"data": data, b"labels": RNG.integers(0, 10, n).tolist()} | changes
    return pickle.dumps({k if isinstance(k, bytes) else k.encode(): v for k, v in batch.items()})


def cifar_archive(data: Path, **batches: bytes) -> dict[str, bytes]:
    names = [f"data_batch_{i}" for i in range(1, 6)]
    files = {name: cifar_batch(3) for name in names} | {"test_batch": cifar_batch(4)} | batches
    files["readme.html"] = b"<html>"
    named = {f"cifar-10-batches-py/{name}": content for name, content in files.items() if content}
    write_tar(data / "cifar10/cifar-10-python.tar.gz", named, "w:gz")
    return files


def test_cifar10_trains_on_its_batches_and_holds_out_test_images(tmp_path):
    files = cifar_archive(tmp_path)
    store = packed(CIFAR10 | {"subset": 11}, tmp_path)
    assert store.shape == (3, 32, 32)
    assert store.manifest["splits"] == {"train": [0, 11], "held_out": [11, 13]}
    assert store.manifest["class_names"][3] == "cat"
    labels = {}
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"):
        batch = pickle.loads(files[name])
        labels |= {
            row.tobytes(): y for row, y in zip(batch[b"data"], batch[b"labels"], strict=True)
        }
    for image, label in zip(*store.split("train"), strict=True):
        assert labels[image.tobytes()] == label
    test = {row.tobytes() for row in pickle.loads(files["test_batch"])[b"data"]}
    assert {image.tobytes() for image in store.split("held_out")[0]} < test
    with pytest.raises(ValueError, match=r"dataset.held_out: found 5; accepted: 1 to 4"):
        packed(CIFAR10 | {"held_out": 5}, tmp_path)


def python_2_batch(data: np.ndarray, labels: bytes) -> bytes:
    """A batch as the official archive holds it: pickled by Python 2, its strings bytes (opcodes U and T)."""
    rows, columns = (b"M" + struct.pack("<H", n) for n in data.shape)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + rows
        + columns
        + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        + b"J\xff\xff\xff\xff" * 2
        + b"K\x00tb\x89T"
        + struct.pack("<i", data.size)
        + data.tobytes()
        + b"tb"
    )
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels](" + numbers + b"eu."


def test_batches_pickled_by_python_2_are_read(tmp_path):
    data = RNG.integers(0, 256, (2, 3072)).astype(np.uint8)
    cifar_archive(tmp_path, test_batch=python_2_batch(data, bytes([7, 4])))
    images, labels = packed(CIFAR10, tmp_path).split("held_out")
    order = np.argsort(labels)[::-1]
    np.testing.assert_array_equal(np.array(labels)[order], [7, 4])
    np.testing.assert_array_equal(np.array(images)[order].reshape(2, 3072), data)


class _Malicious:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_malicious_pickle_is_refused_without_running(tmp_path):
    cifar_archive(tmp_path, data_batch_2=pickle.dumps(_Malicious(tmp_path / "ran")))
    with pytest.raises(ValueError, match=r"data_batch_2: its pickle calls \w+\.mkdir; refused"):
        packed(CIFAR10, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (b"", r"python\.tar\.gz: test_batch missing"),
        (b"nonsense", r"python\.tar\.gz: test_batch: "),
        (cifar_batch(3, labels=[1, 2, 10]), r"test_batch: accepted: uint8 data \[n, 3072\]"),
        (cifar_batch(3, data=np.zeros((3, 3071), np.uint8)), r"test_batch: accepted: uint8 data"),
        (cifar_batch(3, data=np.zeros((3, 3072))), r"test_batch: accepted: uint8 data"),
    ],
)
def test_odd_batches_are_refused_by_name(tmp_path, batch, message):
    cifar_archive(tmp_path, test_batch=batch)
    with pytest.raises(ValueError, match=message):
        packed(CIFAR10, tmp_path)


def test_a_cut_cifar_archive_is_refused(tmp_path):
    cifar_archive(tmp_path)
    path = tmp_path / "cifar10/cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"python\.tar\.gz: damaged or cut short"):
        packed(CIFAR10, tmp_path)
    path.write_bytes(gzip.compress(b"no tar"))
    with pytest.raises(ValueError, match=r"python\.tar\.gz: neither a zip nor a whole uncompress"):
        packed(CIFAR10, tmp_path)


# --- CelebA


def coordinates(width: int = 178, height: int = 218) -> Image.Image:
    """Red is x, green y."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


def celeba(data: Path, images: dict[str, bytes], partition: str | None = None) -> None:
    files = {f"img_align_celeba/{name}": content for name, content in images.items()}
    write_zip(data / "celeba/img_align_celeba.zip", files)
    if partition is not None:
        (data / "celeba/list_eval_partition.txt").write_text(partition)


def test_celeba_crops_by_exact_pixels(tmp_path):
    celeba(tmp_path, {f"{i}.png": encoded(coordinates()) for i in range(2)})
    store = packed(CELEBA, tmp_path)
    red, green, _ = store.images[0]
    assert (red[0, 0], red[0, -1], green[0, 0], green[-1, 0]) == (25, 152, 57, 184)
    assert (store.num_classes, set(store.labels)) == (-1, {-1})
    red, green, _ = packed(CELEBA | {"crop": "center_178", "size": 178}, tmp_path).images[0]
    assert (red[0, 0], red[0, -1], green[0, 0], green[-1, 0]) == (0, 177, 20, 197)
    half = packed(CELEBA | {"crop": "center_178", "size": 89}, tmp_path)
    expected = np.arange(0, 178, 2) + 1  # the mean of 2i and 2i + 1, rounded up
    np.testing.assert_array_equal(half.images[0, 0, 5], expected)
    assert half.manifest["transform"] == {
        "crop": "center_178",
        "size": 89,
        "filter": "box",
        "channels": 3,
        "transparency": "on white",
        "pillow": Image.__version__,
    }


def test_celeba_images_of_another_size_are_not_the_aligned_ones(tmp_path):
    sizes = {"1.png": (178, 218), "2.png": (178, 218), "3.png": (218, 178)}
    celeba(tmp_path, {name: encoded(coordinates(*size)) for name, size in sizes.items()})
    skipped = packed(CELEBA, tmp_path).manifest["skipped"]
    assert skipped == {"not 178x218": {"count": 1, "names": ["img_align_celeba/3.png"]}}


def test_celebas_train_split_holds_out_official_test_images(tmp_path):
    numbers = [0, 1, 2, 0, 2, 1, 0, 2]
    images = {f"{i}.png": encoded(flat_celeba(i)) for i in range(len(numbers))}
    partition = "".join(f"{i}.png {n}\n" for i, n in enumerate(numbers))
    celeba(tmp_path, images, partition)
    dataset = CELEBA | {"split": "train", "held_out": 2}
    store = packed(dataset, tmp_path)
    assert {image[0, 0, 0] for image in store.split("train")[0]} == {0, 3, 6}
    held_out = {image[0, 0, 0] for image in store.split("held_out")[0]}
    assert len(held_out) == 2
    assert held_out < {2, 4, 7}
    (tmp_path / "celeba/list_eval_partition.txt").write_text(partition + "9.png 0\n")
    with pytest.raises(
        ValueError, match=r"partition\.txt: 9 images for 8 in the zip; 9\.png is in"
    ):
        packed(dataset, tmp_path)
    (tmp_path / "celeba/list_eval_partition.txt").write_text("1.png\n")
    with pytest.raises(
        ValueError, match=r"partition\.txt: accepted: lines such as '000001\.jpg 0'"
    ):
        packed(dataset, tmp_path)
    with pytest.raises(ValueError, match=r"dataset.split: found 'val'; accepted: all, train"):
        packed(CELEBA | {"split": "val"}, tmp_path)


def flat_celeba(value: int) -> Image.Image:
    return Image.new("RGB", (178, 218), (value, 0, 0))


def test_skipped_test_images_are_not_replaced_by_training_images(tmp_path):
    images = {f"{i}.png": encoded(flat_celeba(i)) for i in range(4)} | {"3.png": b"broken"}
    celeba(tmp_path, images, "0.png 0\n1.png 0\n2.png 2\n3.png 2\n")
    message = "held_out: found 2, but only 3 of 4 images are usable, 1 of them to hold out"
    with pytest.raises(ValueError, match=message):
        packed(CELEBA | {"split": "train", "held_out": 2}, tmp_path)


# --- ImageNet

# English names that sort otherwise than the synsets, one of them twice and one with a capital
SYNSETS = {
    "n01440764": "tench",
    "n02012849": "crane",
    "n02094433": "Yorkshire terrier",
    "n03126707": "crane",
}
MAPPING = "".join(f"{synset} {name}, something else\n" for synset, name in SYNSETS.items())


def imagenet(data: Path, layout: str) -> dict[bytes, str]:
    """Writes three images of each synset; their pixels' bytes to their synsets."""
    synsets, files = {}, {}
    for synset in SYNSETS:
        for i in range(3):
            image = noise()
            synsets[np.asarray(image).tobytes()] = synset
            files[f"{synset}/{synset}_{i}.JPEG"] = encoded(image)
    folder = write_folder(data / "imagenet", {"LOC_synset_mapping.txt": MAPPING.encode()})
    if layout == "folder":
        write_folder(folder / "train", files)
        return synsets
    inner = {}
    for synset in reversed(SYNSETS):
        members = {Path(n).name: content for n, content in files.items() if n.startswith(synset)}
        inner[f"{synset}.tar"] = write_tar(data / "inner.tar", members).read_bytes()
    write_tar(folder / "ILSVRC2012_img_train.tar", inner)
    return synsets


@pytest.mark.parametrize("layout", ["folder", "tar"])
@pytest.mark.parametrize(
    ("class_order", "expected"),
    [
        ("synset", ["n01440764", "n02012849", "n02094433", "n03126707"]),
        ("alphabetical", ["n02012849", "n03126707", "n01440764", "n02094433"]),
    ],
)
def test_imagenet_labels_in_both_class_orders(tmp_path, layout, class_order, expected):
    synsets = imagenet(tmp_path, layout)
    store = packed(IMAGENET | {"class_order": class_order}, tmp_path)
    assert store.manifest["class_order"] == class_order
    assert store.manifest["class_names"] == expected
    assert store.manifest["english_names"] == [SYNSETS[synset] for synset in expected]
    assert store.num_classes == 4
    assert len(store) == 12
    for image, label in zip(store.images, store.labels, strict=True):
        assert synsets[image.transpose(1, 2, 0).tobytes()] == expected[label]


def test_imagenet_needs_its_mapping_for_names_only(tmp_path):
    imagenet(tmp_path, "tar")
    mapping = tmp_path / "imagenet/LOC_synset_mapping.txt"
    mapping.write_text(MAPPING.partition("\n")[0])
    with pytest.raises(ValueError, match=r"LOC_synset_mapping\.txt: no name for n02012849"):
        packed(IMAGENET, tmp_path)
    mapping.unlink()
    assert "english_names" not in packed(IMAGENET, tmp_path).manifest
    with pytest.raises(FileNotFoundError, match=r"mapping\.txt is missing.*kaggle\.com"):
        packed(IMAGENET | {"class_order": "alphabetical"}, tmp_path)
    with pytest.raises(ValueError, match="class_order: found 'x'; accepted: synset, alphabetical"):
        packed(IMAGENET | {"class_order": "x"}, tmp_path)


def test_folders_that_are_no_synsets_are_refused(tmp_path):
    write_folder(tmp_path / "imagenet/train", {"tench/1.JPEG": png(), "n01440764/1.JPEG": png()})
    with pytest.raises(
        ValueError, match="found the class 'tench'; accepted: ids such as n01440764"
    ):
        packed(IMAGENET, tmp_path)


def test_an_unsafe_member_of_an_inner_tar_is_refused_by_both_names(tmp_path):
    inner = write_tar(tmp_path / "inner.tar", {"../a.JPEG": png()}).read_bytes()
    write_tar(tmp_path / "outer.tar", {"n01440764.tar": inner})
    with pytest.raises(ValueError, match=r"outer\.tar/n01440764\.tar: '\.\./a\.JPEG' leads out"):
        open_nested_tar(tmp_path / "outer.tar")


# --- digits


def test_digits_keep_their_bytes_or_are_enlarged(tmp_path):
    dataset = {"source": "digits", "held_out": 360}
    small = pack(dataset, tmp_path, 1, tmp_path / "small/manifest.json")
    assert small["images_sha256"].startswith("c56b01bc26224f44")
    assert small["transform"] == "none"
    options = {"size": 16, "filter": "bicubic"}
    large = pack(dataset | options, tmp_path, 1, tmp_path / "large/manifest.json")
    assert large["labels_sha256"] == small["labels_sha256"]
    assert large["transform"].items() >= options.items()
    originals, enlarged = (
        ImageStore(tmp_path / name / "manifest.json").images for name in ("small", "large")
    )
    assert enlarged.shape == (1797, 1, 16, 16)
    expected = Image.fromarray(originals[7, 0]).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(enlarged[7, 0], np.asarray(expected))
    with pytest.raises(ValueError, match=r"dataset.filter: found 'nearest'; accepted: box, bilin"):
        pack(dataset | options | {"filter": "nearest"}, tmp_path, 1, tmp_path / "manifest.json")


# --- fetching


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (CELEBA, r"celeba/img_align_celeba\.zip is missing.*mmlab\.ie\.cuhk\.edu\.hk"),
        (
            IMAGENET,
            r"imagenet/ILSVRC2012_img_train\.tar is missing.*image-net\.org.*imagenet/train",
        ),
        (IMAGES, r"images is missing; accepted: a folder, zip or tar of images"),
    ],
)
def test_missing_files_are_named_with_their_page(tmp_path, dataset, message):
    with pytest.raises(FileNotFoundError, match=message):
        fetch_dataset(dataset, tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        packed(dataset, tmp_path)


def test_a_missing_partition_is_named_for_the_split_that_needs_it(tmp_path):
    celeba(tmp_path, {"1.png": b""})
    size = (tmp_path / "celeba/img_align_celeba.zip").stat().st_size
    assert fetch_dataset(CELEBA, tmp_path) == {
        "source": "celeba",
        "files": [{"name": "img_align_celeba.zip", "bytes": size}],
    }
    with pytest.raises(FileNotFoundError, match=r"list_eval_partition\.txt is missing.*mmlab"):
        fetch_dataset(CELEBA | {"split": "train"}, tmp_path)


def test_cifar10_is_verified_and_its_absence_before_packing_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python\.tar\.gz is missing.*toronto"):
        packed(CIFAR10, tmp_path)
    cifar_archive(tmp_path)
    with pytest.raises(
        ValueError, match=f"python.tar.gz: found sha256 .*expected {cifar10.SHA256}"
    ):
        fetch_dataset(CIFAR10, tmp_path)
    path = tmp_path / "cifar10/cifar-10-python.tar.gz"
    path.write_bytes(b"the official archive")
    sha256 = "994bbf9045a4673dfdcbe84b22f01eeb8b22321087578fab5f15dc830c1a23bb"
    monkeypatch.setattr(cifar10, "SHA256", sha256)
    assert fetch_dataset(CIFAR10, tmp_path)["files"] == [
        {"name": "cifar-10-python.tar.gz", "bytes": 20, "sha256": sha256}
    ]


def test_receipts_of_what_needs_no_download(tmp_path):
    digits = fetch_dataset({"source": "digits", "held_out": 360}, tmp_path)
    assert digits == {"source": "digits", "files": []}
    write_folder(tmp_path / "images", {"1.png": png()})
    assert fetch_dataset(IMAGES, tmp_path)["files"] == [{"name": "images", "bytes": None}]
    imagenet(tmp_path, "folder")
    names = [file["name"] for file in fetch_dataset(IMAGENET, tmp_path)["files"]]
    assert names == ["train", "LOC_synset_mapping.txt"]


# --- real images


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL.name} is not there")
def test_real_cifar10_images_are_packed_as_they_are(tmp_path):
    dataset = IMAGES | {"path": REAL.name, "size": 32, "subset": 200, "held_out": 20}
    pack(dataset, REAL.parent, 1, tmp_path / "manifest.json")
    store = ImageStore(tmp_path / "manifest.json")
    assert store.images.shape == (220, 3, 32, 32)
    assert store.manifest["class_names"] == cifar10.CLASSES
    assert set(store.labels) == set(range(10))
    assert store.manifest["skipped"] == store.manifest["converted"] == {}
    with zipfile.ZipFile(REAL) as archive:
        name = sorted(archive.namelist())[np.random.default_rng(0).permutation(10_000)[7]]
        image = np.asarray(Image.open(io.BytesIO(archive.read(name))))
    assert np.array_equal(store.images[7].transpose(1, 2, 0), image)
    assert cifar10.CLASSES[store.labels[7]] == name.partition("/")[0]
