"""Datasets to stores: order, splits, skipped images, memory; and real images."""

import io
import os
import re
import signal
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit.image_files import (
    CELEBA,
    IMAGES,
    SIZE,
    celeba,
    encoded,
    noise,
    packed,
    png,
    write_folder,
    write_zip,
)

from duodiff.data import cifar10
from duodiff.data.decode import Decoded, decode_member
from duodiff.data.pack import pack
from duodiff.data.store import ImageStore

REAL = Path(__file__).parents[3].parent / "shared/data/cifar10-test-jpeg.zip"


def test_the_store_does_not_depend_on_the_workers(tmp_path, monkeypatch):
    """Byte for byte, with skipped and converted images and more chunks than are in flight; as np.save's."""
    monkeypatch.setattr("duodiff.running.pool._CHUNK", 10)
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

    def decoded(image, transform):  # for true decoding takes longer; of every six one is skipped
        skip = int(Path(image.name).stem) % 6 == 0
        return Decoded(None, skipped="corrupt") if skip else Decoded(pixels)

    pixels = np.zeros((3, 4, 4), np.uint8)
    monkeypatch.setattr("duodiff.data.pack.decode_member", decoded)
    # What has a fixed size would hide much.
    monkeypatch.setattr("duodiff.data.store.sha256", lambda _: "")
    monkeypatch.setattr("duodiff.data.archives._COMMENT", 0)
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


# --- interrupted


FILES = {f"{'ab'[i % 2]}/{i:02}.png": png() for i in range(60)} | {"b/03.png": b"broken"}


def killing(image, transform):
    """Decodes, but for one image that kills its process."""
    if image.name == "a/40.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return decode_member(image, transform)


class Counting:
    """Decodes and counts; stops at the image number `last`."""

    def __init__(self, last: int | None = None):
        self.count, self.last = 0, last

    def __call__(self, image, transform):
        if self.count == self.last:
            raise KeyboardInterrupt
        self.count += 1
        return decode_member(image, transform)


@pytest.fixture
def whole(tmp_path) -> dict[str, bytes]:
    """The files of the store of FILES, packed without interruption; the next one goes to another folder."""
    write_folder(tmp_path / "images", FILES)
    pack(IMAGES | {"held_out": 5}, tmp_path, 1, tmp_path / "whole/manifest.json")
    return contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupted(tmp_path, monkeypatch, last: int) -> Path:
    """Packs FILES until the image number `last`, with states every 10 images; where the store is to be."""
    manifest = tmp_path / "store/manifest.json"
    monkeypatch.setattr("duodiff.data.pack._KEPT_EVERY", 10)
    monkeypatch.setattr("duodiff.data.pack.decode_member", Counting(last))
    with pytest.raises(KeyboardInterrupt):
        pack(IMAGES | {"held_out": 5}, tmp_path, 1, manifest)
    (unfinished,) = manifest.parent.iterdir()
    assert unfinished.name.endswith(".unfinished")
    return manifest


def decoded_now(tmp_path, monkeypatch, manifest: Path, **changes) -> int:
    """Packs FILES; the number of images that were decoded."""
    counting = Counting()
    monkeypatch.setattr("duodiff.data.pack.decode_member", counting)
    pack(IMAGES | {"held_out": 5} | changes, tmp_path, 1, manifest)
    return counting.count


def test_a_killed_process_is_reported_with_its_image_and_packing_continues(
    tmp_path, whole, monkeypatch
):
    monkeypatch.setattr("duodiff.running.pool._CHUNK", 4)
    monkeypatch.setattr("duodiff.data.pack.decode_member", killing)
    manifest = tmp_path / "store/manifest.json"
    with pytest.raises(ChildProcessError) as error:
        pack(IMAGES | {"held_out": 5}, tmp_path, 2, manifest)
    said = str(error.value)
    assert "the process that decoded a/40.png was killed (SIGKILL), most likely because" in said
    assert "Lower the number of processes, now 2" in said
    packed_before = int(re.search(r"The (\d+) images packed so far are kept", said)[1])
    names = sorted(FILES)
    order = np.random.default_rng(0).permutation(60).tolist()
    place = order.index(names.index("a/40.png"))
    assert place - 4 * 4 * 2 - 4 <= packed_before <= place
    left = decoded_now(tmp_path, monkeypatch, manifest)
    broken_before = order.index(names.index("b/03.png")) < place
    assert left in (60 - packed_before - broken_before, 60 - packed_before)
    assert contents(manifest.parent) == whole


def test_a_lack_of_memory_names_the_image(tmp_path, monkeypatch):
    def hungry(image, transform):
        raise MemoryError

    write_folder(tmp_path / "images", FILES)
    monkeypatch.setattr("duodiff.data.pack.decode_member", hungry)
    with pytest.raises(
        ChildProcessError, match=r"decoded [ab]/\d\d.png had no memory left\. Lower"
    ):
        packed(IMAGES, tmp_path)


@pytest.mark.parametrize(("last", "kept"), [(0, 0), (9, 0), (10, 10), (37, 30), (59, 50)])
def test_an_interrupted_packing_continues_to_the_same_bytes(
    tmp_path, whole, monkeypatch, last, kept
):
    manifest = interrupted(tmp_path, monkeypatch, last)
    assert decoded_now(tmp_path, monkeypatch, manifest) == 60 - kept
    assert contents(manifest.parent) == whole


def test_other_images_and_another_configuration_start_anew(tmp_path, monkeypatch):
    write_folder(tmp_path / "images", FILES)
    manifest = interrupted(tmp_path, monkeypatch, 37)
    write_folder(tmp_path / "images", {"b/11.png": png() + b"changed"})
    assert decoded_now(tmp_path, monkeypatch, manifest) == 60
    manifest.unlink()
    for name in ("images.npy", "labels.npy"):
        (manifest.parent / name).unlink()
    interrupted(tmp_path, monkeypatch, 37)
    assert decoded_now(tmp_path, monkeypatch, manifest, size=SIZE - 1) == 60
    assert sorted(contents(manifest.parent)) == ["images.npy", "labels.npy", "manifest.json"]


def damage_state(folder: Path) -> None:
    (folder / "state.json").write_text("{", encoding="utf-8")


def cut_images(folder: Path) -> None:
    with open(folder / "images.npy", "r+b") as file:
        file.truncate(500)


def lose_labels(folder: Path) -> None:
    (folder / "labels.npy").unlink()


@pytest.mark.parametrize("damage", [damage_state, cut_images, lose_labels])
def test_a_damaged_packing_starts_anew(tmp_path, whole, monkeypatch, damage):
    manifest = interrupted(tmp_path, monkeypatch, 37)
    damage(*manifest.parent.iterdir())
    assert decoded_now(tmp_path, monkeypatch, manifest) == 60
    assert contents(manifest.parent) == whole


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
