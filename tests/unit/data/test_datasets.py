"""The dataset families: images, labels, splits, and the files that are fetched or missing."""

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit.image_files import (
    CELEBA,
    CIFAR10,
    IMAGENET,
    IMAGES,
    RNG,
    STAND_INS,
    celeba,
    encoded,
    noise,
    packed,
    png,
    write_folder,
    write_tar,
    write_zip,
)

from duodiff.data import cifar10
from duodiff.data.archives import open_nested_tar
from duodiff.data.families import contents, family, fetch_dataset, fetched_contents
from duodiff.data.pack import pack
from duodiff.data.store import ImageStore
from duodiff.running.files import write_json
from duodiff.study.families import Contents, Split, files_read

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
    (tmp_path / "celeba/list_eval_partition.txt").write_text(
        partition + "9.png 0\n", encoding="utf-8"
    )
    with pytest.raises(
        ValueError, match=r"partition\.txt: 9 images for 8 in the zip; 9\.png is in"
    ):
        packed(dataset, tmp_path)
    (tmp_path / "celeba/list_eval_partition.txt").write_text("1.png\n", encoding="utf-8")
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
    mapping.write_text(MAPPING.partition("\n")[0], encoding="utf-8")
    with pytest.raises(ValueError, match=r"LOC_synset_mapping\.txt: no name for n02012849"):
        packed(IMAGENET, tmp_path)
    mapping.write_bytes("n02012849 Kranich, grün".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"mapping\.txt: found the byte 0xfc; accepted: text in UTF-8"
    ):
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


@pytest.mark.parametrize(
    ("names", "split", "classes"),
    [
        (["a/1.png", "a/2.png", "b/1.png", "notes.txt"], Split(3), 2),
        (["photos/1.png", "photos/2.png"], Split(2), -1),  # a folder around all is no class
        (["1.png", "2.png"], Split(2), -1),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png"], Split(2, test=1), 2),
    ],
)
@pytest.mark.parametrize("write", [write_folder, write_zip, write_tar])
def test_the_receipt_of_own_images_has_their_number_and_that_of_their_classes(
    tmp_path, write, names, split, classes
):
    write(tmp_path / "images", {name: png() for name in names})
    receipt = tmp_path / "fetched.json"
    write_json(receipt, fetch_dataset(IMAGES, tmp_path))
    expected = Contents(split, classes)
    assert contents(IMAGES, tmp_path) == fetched_contents(IMAGES, receipt) == expected
    store = packed(IMAGES, tmp_path)
    assert (len(store), store.num_classes) == (split.images + (split.test or 0), classes)
    assert fetched_contents(IMAGES | {"path": "others"}, receipt) is None


@pytest.mark.parametrize("receipt", ["", "{", "[]", '{"files": []}'])
def test_a_receipt_that_counts_nothing_is_passed_over(tmp_path, receipt):
    (tmp_path / "fetched.json").write_text(receipt, encoding="utf-8")
    assert fetched_contents(IMAGES, tmp_path / "fetched.json") is None
    assert fetched_contents(IMAGES, tmp_path / "missing.json") is None


@pytest.mark.parametrize("found", STAND_INS)
@pytest.mark.parametrize(
    ("dataset", "file"),
    [
        (IMAGES | {"path": "shapes.zip"}, "shapes.zip"),
        (CELEBA, "celeba/img_align_celeba.zip"),
        (CELEBA | {"split": "train"}, "celeba/list_eval_partition.txt"),
        (CIFAR10, "cifar10/cifar-10-python.tar.gz"),
        (IMAGENET, "imagenet/ILSVRC2012_img_train.tar"),
        (IMAGENET | {"class_order": "alphabetical"}, "imagenet/LOC_synset_mapping.txt"),
    ],
)
def test_what_stands_in_for_a_file_is_named_before_packing(tmp_path, dataset, file, found):
    celeba(tmp_path, {"1.png": b""}, "1.png 0\n")
    imagenet(tmp_path, "tar")
    write_folder(tmp_path, {file: STAND_INS[found]})
    with pytest.raises(ValueError, match=f"{Path(file).name}: found {found} in place of the file"):
        fetch_dataset(dataset, tmp_path)


# --- what is watched at planning


def check_files_read(dataset: dict, data: Path, *names: str) -> None:
    """The files that are read, by name; and a reader's own files are those of them that are there."""
    found = files_read(dataset, data)
    assert found == {name: data / name for name in names}
    read = family(dataset).fetch(dataset, data)
    assert list(read) == [path for path in found.values() if path.exists()]


def test_the_files_that_are_watched_are_those_that_are_read(tmp_path, monkeypatch):
    check_files_read({"source": "digits"}, tmp_path)
    write_folder(tmp_path, {"shapes.zip": b"PK", "images/1.png": png(), "unrelated": b""})
    check_files_read(IMAGES, tmp_path, "images")
    check_files_read(IMAGES | {"path": "shapes.zip"}, tmp_path, "shapes.zip")
    celeba(tmp_path, {"1.png": b""}, "1.png 0\n")
    check_files_read(CELEBA, tmp_path, "celeba/img_align_celeba.zip")
    both = ["celeba/img_align_celeba.zip", "celeba/list_eval_partition.txt"]
    check_files_read(CELEBA | {"split": "train"}, tmp_path, *both)
    monkeypatch.setattr(cifar10, "download", lambda *_: None)
    write_folder(tmp_path, {"cifar10/cifar-10-python.tar.gz": b""})
    check_files_read(CIFAR10, tmp_path, "cifar10/cifar-10-python.tar.gz")
    imagenet(tmp_path, "tar")
    folder, tar, mapping = (
        f"imagenet/{name}"
        for name in ("train", "ILSVRC2012_img_train.tar", "LOC_synset_mapping.txt")
    )
    check_files_read(IMAGENET, tmp_path, folder, tar, mapping)
    imagenet(tmp_path, "folder")  # read in place of the tar
    check_files_read(IMAGENET, tmp_path, folder, mapping)
    (tmp_path / mapping).unlink()
    check_files_read(IMAGENET, tmp_path, folder, mapping)
