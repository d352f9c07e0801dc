"""What a folder, zip or tar of images may look like: the list in docs/robustness.md, and folders drawn at random."""

import logging
import os
import re
import runpy
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st
from unit.image_files import (
    CELEBA,
    IMAGENET,
    IMAGES,
    SIZE,
    celeba,
    encoded,
    noise,
    packed,
    png,
    write_folder,
    write_tar,
    write_zip,
)

from duodiff.clutter import clutter
from duodiff.data.archives import open_members
from duodiff.data.families import contents
from duodiff.data.folders import walk
from duodiff.data.splits import find_splits
from duodiff.data.store import ImageStore
from duodiff.study.families import Split

ROOT = Path(__file__).parents[3]
WRITERS = {"images": write_folder, "images.zip": write_zip, "images.tar": write_tar}
LINKS = {"broken link", "link back into the folder", "no plain file"}
"""Reasons to skip a file that an archive cannot hold."""


def layouts() -> list[tuple[str, str]]:
    """Files and store of each row of the list."""
    text = (ROOT / "docs/robustness.md").read_text(encoding="utf-8")
    table = text.split("may look like\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return [(files.strip().strip("`"), store.strip()) for files, store, *_ in rows]


def written_out(files: str) -> list[str]:
    """The names that a row's files stand for: `1..3.png` are three."""
    names = []
    for name in files.split():
        if found := re.search(r"(\d+)\.\.(\d+)", name):
            numbers = range(int(found[1]), int(found[2]) + 1)
            names += [name.replace(found[0], str(i)) for i in numbers]
        else:
            names.append(name)
    return names


def write_layout(folder: Path, files: str) -> dict[str, bytes]:
    """Writes a row's files and links into a folder. The files, with what the links to files stand for."""
    names = written_out(files)
    content = {n: png() for n in names if n.endswith(".png") and "->" not in n}
    content |= {n: b"x" for n in names if n not in content and "->" not in n}
    content |= {n: b"x" for n in names if n.endswith("broken.png")}
    write_folder(folder, content)
    for name, target in (n.split("->") for n in names if "->" in n):
        (folder / name).parent.mkdir(exist_ok=True)
        os.symlink(target, folder / name)
    links = (n.split("->")[0] for n in names if "->" in n)
    return content | {n: (folder / n).read_bytes() for n in links if os.path.isfile(folder / n)}


def result(manifest: dict) -> dict:
    """What a row says of a store."""
    (_, train), (_, end) = manifest["splits"]["train"], manifest["splits"]["held_out"]
    found = {"classes": manifest["class_names"], "train": train, "held_out": end - train}
    skipped = {reason: kind["count"] for reason, kind in manifest["skipped"].items()}
    ignored = manifest.get("ignored_by_name", {})
    return (
        found
        | ({"skipped": skipped} if skipped else {})
        | ({"ignored": ignored} if ignored else {})
    )


@pytest.mark.parametrize(("files", "store"), layouts(), ids=[files for files, _ in layouts()])
def test_a_layout_is_packed_as_the_list_says(tmp_path, files, store):
    (tmp_path / "elsewhere").mkdir()
    content = write_layout(tmp_path / "images", files)
    write_zip(tmp_path / "images.zip", content)
    write_tar(tmp_path / "images.tar", content)
    if store.startswith("refused: "):
        archives = ["images.zip", "images.tar"] * ("->" not in files)
        for path in ["images", *archives]:
            with pytest.raises(ValueError, match=re.escape(store.removeprefix("refused: "))):
                packed(IMAGES | {"path": path}, tmp_path)
        return
    found = packed(IMAGES, tmp_path).manifest
    expected = yaml.safe_load(f"{{{store.strip('`')}}}")
    assert result(found) == expected
    skipped = {k: v for k, v in found["skipped"].items() if k not in LINKS}
    for path in ("images.zip", "images.tar"):
        assert packed(IMAGES | {"path": path}, tmp_path).manifest == found | {"skipped": skipped}


def test_the_list_has_layouts_of_every_kind():
    stores = [store for _, store in layouts()]
    assert sum(store.startswith("refused: ") for store in stores) >= 8
    for word in ("classes: []", "skipped:", "ignored:", "broken link", "link back"):
        assert any(word in store for store in stores), word


# --- split folders


def flat(value: int) -> bytes:
    return encoded(noise().point(lambda _: value))


def values(images: np.ndarray) -> set[int]:
    return {int(image[0, 0, 0]) for image in images}


def split_files() -> dict[str, bytes]:
    """Images by split and class; an image's value is its number."""
    counts = [
        ("train/cats", 5),
        ("train/dogs", 3),
        ("test/cats", 4),
        ("test/dogs", 2),
        ("val/cats", 3),
    ]
    names = [f"{folder}/{i}.png" for folder, count in counts for i in range(count)]
    return {name: flat(i) for i, name in enumerate(names)}


@pytest.mark.parametrize("path", WRITERS)
def test_nothing_of_a_pool_is_trained_on_and_the_manifest_says_so(tmp_path, path):
    files = split_files()
    WRITERS[path](tmp_path / path, files)
    store = packed(IMAGES | {"path": path, "held_out": 4}, tmp_path)
    numbers = {
        part: {i for i, n in enumerate(files) if n.startswith(part)} for part in ("train", "test")
    }
    (train, labels), (held_out, _) = store.split("train"), store.split("held_out")
    assert values(train) == numbers["train"]
    assert len(values(held_out)) == 4
    assert values(held_out) < numbers["test"]
    assert sorted(labels) == [0] * 5 + [1] * 3
    assert store.manifest["split_folders"] == {
        "trained_on": {"train": 8},
        "held_out_from": {"test": 6},
        "unused": {"val": 3},
    }
    assert store.manifest["unused"] == 3 + 2
    counted = contents(IMAGES | {"path": path}, tmp_path)  # before any job
    assert (counted.split, counted.classes) == (Split(8, test=6), 2)
    with pytest.raises(ValueError, match=r"dataset.held_out: found 7; accepted: 1 to 6"):
        packed(IMAGES | {"path": path, "held_out": 7}, tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_image_of_a_pool_is_replaced_by_another_of_it(tmp_path, workers):
    """And what is packed does not depend on the images of the pool that are left over."""
    broken = dict.fromkeys((f"test/dogs/{i}.png" for i in range(10, 13)), b"broken")
    write_folder(tmp_path / "images", split_files() | broken)
    store = packed(IMAGES | {"held_out": 6}, tmp_path, workers)
    assert values(store.split("held_out")[0]) == set(range(8, 14))
    with pytest.raises(
        ValueError, match="held_out: found 7, but only 14 of 17 images are usable, 6 of"
    ):
        packed(IMAGES | {"held_out": 7}, tmp_path, workers)


def test_images_left_over_in_a_pool_are_not_counted_as_skipped(tmp_path):
    broken = dict.fromkeys((f"test/dogs/{i}.png" for i in range(10, 60)), b"broken")
    write_folder(tmp_path / "images", split_files() | broken)
    found = [packed(IMAGES, tmp_path, workers).manifest for workers in (1, 2)]
    assert found[0] == found[1]
    assert found[0]["skipped"].get("corrupt", {"count": 0})["count"] < 50


def test_a_packing_that_is_killed_at_its_end_takes_no_more_of_the_pool(tmp_path, monkeypatch):
    write_folder(tmp_path / "images", split_files())
    with monkeypatch.context() as patched:
        patched.setattr("duodiff.data.pack.Unfinished.finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            packed(IMAGES | {"held_out": 2}, tmp_path)
    continued = packed(IMAGES | {"held_out": 2}, tmp_path).manifest
    assert continued["splits"] == {"train": [0, 8], "held_out": [8, 10]}
    assert continued == packed(IMAGES | {"held_out": 2}, tmp_path, workers=2).manifest


def interrupt(*_) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("folder", "part"),
    [(n, "train") for n in ("train", "TRAIN", "training", "train_set", "train-data", "train2014")]
    + [(n, "test") for n in ("test", "Testing", "testset", "test_images")]
    + [(n, "val") for n in ("val", "valid", "Validation", "dev", "validation set")]
    + [(n, None) for n in ("trains", "trained", "contest", "test1", "value", "developer", "tests")],
)
def test_names_of_split_folders(tmp_path, folder, part):
    other = "test" if part == "train" else "train"
    write_folder(tmp_path / "images", {f"{folder}/1.png": b"", f"{other}/1.png": b""})
    if part is None:
        with pytest.raises(ValueError, match=f"found train beside {folder}; accepted"):
            find_splits(open_members(tmp_path / "images"))
        return
    found = find_splits(open_members(tmp_path / "images"))
    assert {found.train.name, found.pool.name} == {folder, other}
    assert found.train.name == (folder if part == "train" else "train")


# --- what cannot be read


def test_files_that_are_none_are_known_before_decoding(tmp_path, monkeypatch):
    """A pipe would be waited for without end."""
    write_folder(tmp_path / "images", {f"a/{i}.png": png() for i in range(3)})
    os.mkfifo(tmp_path / "images/a/pipe.png")
    os.symlink("pipe.png", tmp_path / "images/a/link.png")
    os.symlink(tmp_path / "images/a/0.png", tmp_path / "images/a/good.png")
    os.symlink("missing", tmp_path / "images/lost")
    assert dict(walk(tmp_path / "images")) == {
        **{f"a/{name}.png": None for name in ("0", "1", "2", "good")},
        **{f"a/{name}.png": "no plain file" for name in ("pipe", "link")},
        "lost": "broken link",
    }
    manifest = packed(IMAGES, tmp_path).manifest
    assert manifest["skipped"] == {
        "broken link": {"count": 1, "names": ["lost"]},
        "no plain file": {"count": 2, "names": ["a/link.png", "a/pipe.png"]},
    }
    assert manifest["count"] == 4


def test_links_around_the_images_are_followed_and_those_below_are_judged_by_them(tmp_path):
    """The folder of images may itself be a link; a link to the folder's other name leads back too."""
    write_folder(tmp_path / "disk/images", {f"{c}/{i}.png": png() for c in "ab" for i in range(2)})
    os.symlink(tmp_path / "disk/images", tmp_path / "images")
    os.symlink(tmp_path / "images", tmp_path / "disk/images/a/again")
    manifest = packed(IMAGES, tmp_path).manifest
    assert (manifest["count"], manifest["class_names"]) == (4, ["a", "b"])
    assert manifest["skipped"]["link back into the folder"]["names"] == ["a/again"]


def test_a_path_that_is_a_broken_link_is_named_with_its_target(tmp_path):
    for target in ("elsewhere", "images"):
        os.symlink(target, tmp_path / "images")
        with pytest.raises(FileNotFoundError, match=f"images links to {target}, which is missing"):
            packed(IMAGES, tmp_path)
        (tmp_path / "images").unlink()


def line_of(files: dict[str, bytes], data: Path) -> str:
    """What the job that packs the files says at its end."""
    write_folder(data / "images", files)
    script = runpy.run_path(str(ROOT / "workflow_scripts/pack_dataset.py"))
    return script["pack_dataset"](IMAGES, data, 1, data / "store/manifest.json")


def test_the_jobs_line_has_what_is_left_out_and_the_split_folder(tmp_path):
    files = {f"{c}/{i}.png": png() for c in "ab" for i in range(3)}
    others = {"a/@eaDir/0.png": b"x", "a/@eaDir/1.png": b"x", "notes.txt": b"x", "b/9.heic": b"x"}
    left_out = "1 held out, 1 skipped, ignored 1 *.txt, 2 @eaDir, 2 classes (a, b)"
    found = line_of(files | others, tmp_path / "a")
    assert found == f"6 images of [3, {SIZE}, {SIZE}], {left_out}"
    left_out = "1 held out from test, 0 skipped, 2 classes (cats, dogs)"
    assert line_of(split_files(), tmp_path / "b").endswith(left_out)


def forbid(monkeypatch, name: str) -> None:
    """No folder of that name may be read; for root, who may read all of them."""
    scan = os.scandir

    def scandir(path):
        if not isinstance(path, int) and Path(path).name == name:  # not an open folder
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", scandir)


def test_a_folder_that_may_not_be_read_is_an_error_unless_it_is_the_systems(tmp_path, monkeypatch):
    files = ("a/1.png", "a/2.png", "b/1.png", "lost+found/1.png")
    write_folder(tmp_path / "images", {name: png() for name in files})
    forbid(monkeypatch, "lost+found")
    manifest = packed(IMAGES, tmp_path).manifest
    assert (manifest["count"], manifest["ignored_by_name"]) == (3, {"lost+found": 1})
    forbid(monkeypatch, "b")
    with pytest.raises(PermissionError, match="images/b"):
        packed(IMAGES, tmp_path)


def test_all_families_leave_out_what_a_system_leaves(tmp_path):
    synsets = {f"{s}/{i}.JPEG": png() for s in ("n01440764", "n02012849") for i in range(2)}
    write_folder(tmp_path / "imagenet/train", synsets | {"@eaDir/n0/1.JPEG": png()})
    os.symlink("missing", tmp_path / "imagenet/train/n01440764/9.JPEG")
    manifest = packed(IMAGENET, tmp_path).manifest
    assert (manifest["count"], manifest["ignored_by_name"]) == (4, {"@eaDir": 1})
    assert manifest["skipped"]["broken link"]["names"] == ["n01440764/9.JPEG"]
    faces = {f"{i}.png": encoded(noise(8).resize((178, 218))) for i in range(2)}
    celeba(tmp_path, faces | {"Thumbs.db": b"x"})
    assert packed(CELEBA, tmp_path).manifest["ignored_by_name"] == {"Thumbs.db": 1}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("cats/@EADIR/1.png/x.jpg", "@eaDir"),
        ("$Recycle.Bin/1.png", "$RECYCLE.BIN"),
        ("a/thumbs.DB", "Thumbs.db"),
        ("a/.Trash-1000/files/1.png", ".Trash*"),
        ("a/.hidden/1.png", ".*"),
        ("a/._1.png", "._*"),
        ("recycled/1.png", None),  # waste, sorted
        ("@user/lost/found.png", None),
    ],
)
def test_names_that_a_system_leaves(path, name):
    assert clutter(path) == name


# --- few images, many classes


def test_three_images_in_all(tmp_path):
    write_folder(tmp_path / "images", {f"{i}.png": flat(i) for i in range(3)})
    store = packed(IMAGES | {"held_out": 2}, tmp_path)
    assert store.manifest["splits"] == {"train": [0, 1], "held_out": [1, 3]}
    assert values(store.images) == {0, 1, 2}
    for held_out in (0, 3):
        with pytest.raises(ValueError, match=rf"held_out: found {held_out}; accepted: 1 to 2"):
            packed(IMAGES | {"held_out": held_out}, tmp_path)


def test_classes_without_an_image_to_train_on_are_named(tmp_path, caplog):
    files = {f"{c}/1.png": png() for c in "abcdefgh"} | {"bad/1.png": b"broken"}
    write_folder(tmp_path / "images", files)
    store = packed(IMAGES | {"held_out": 2}, tmp_path)
    assert store.num_classes == 9
    lost = sorted({"bad"} | {store.manifest["class_names"][i] for i in store.split("held_out")[1]})
    assert f"no image to train on in 3 of 9 classes: {', '.join(lost)}" in caplog.messages


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_twenty_thousand_classes_of_one_image(tmp_path, write, caplog):
    content = png()
    write(tmp_path / "images", {f"{i}/1.png": content for i in range(20_000)})
    store = packed(IMAGES | {"held_out": 100}, tmp_path)
    assert (len(store), store.num_classes) == (20_000, 20_000)
    assert store.manifest["class_names"] == sorted(map(str, range(20_000)))
    assert sorted(store.labels) == list(range(20_000))
    assert any(
        m.startswith("no image to train on in 100 of 20000 classes: ") for m in caplog.messages
    )


def test_names_that_are_no_text_are_packed_and_logged(tmp_path):
    write_folder(tmp_path / "images", {f"{c}/{i}.png": png() for c in "ab" for i in range(2)})
    os.rename(tmp_path / "images/a", os.fsencode(tmp_path / "images") + b"/caf\xe9")
    store = packed(IMAGES, tmp_path)
    assert store.manifest["class_names"] == ["b", "caf\udce9"]


def test_a_zip_with_the_separators_of_windows_has_the_same_classes(tmp_path):
    files = {f"{c}/{i}.png": png() for c in ("cats", "dogs") for i in range(2)}
    write_zip(tmp_path / "x.zip", {name.replace("/", "\\"): file for name, file in files.items()})
    write_zip(tmp_path / "y.zip", files)
    found = [packed(IMAGES | {"path": path}, tmp_path).manifest for path in ("x.zip", "y.zip")]
    assert found[0] == found[1]
    assert found[0]["class_names"] == ["cats", "dogs"]


# --- folders drawn at random

NAMES = st.text(
    st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: name not in (".", "..") and not re.fullmatch("[A-Za-z]:", name))
SPLIT_NAMES = st.sampled_from(["train", "Test", "val", "TRAINING", "valid", "dev", "test_set"])
CLUTTER = st.sampled_from(["@eaDir", "Thumbs.db", ".git", "$RECYCLE.BIN", "__MACOSX", "lost+found"])
FILES = st.sampled_from(
    ["good"] * 6 + ["broken", "tiny", "text", "heic", "dangling", "circle", "pipe"]
)
TINY = png(SIZE - 1)
EXTENSIONS = {"text": ".txt", "heic": ".HEIC"}


SPLITS = st.one_of(
    st.lists(SPLIT_NAMES, min_size=1, max_size=3, unique=True),
    st.sampled_from([["train", "Test"], ["TRAINING", "dev"], ["train", "val", "test_set"]]),
)


@st.composite
def trees(draw) -> dict[str, str]:
    """The kind of each file of a folder, by its name."""
    classes = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    folders = [[c] for c in classes]
    if draw(st.booleans()):
        folders = [[split, c] for split in draw(SPLITS) for c in classes]
    for _ in range(draw(st.integers(0, 2))):
        folders.append([draw(CLUTTER), *draw(st.lists(NAMES, max_size=1))])
    around = draw(st.lists(NAMES, max_size=2))
    tree: dict[str, str] = {}
    for folder in folders:
        below = draw(st.lists(NAMES, max_size=2))
        others = draw(st.lists(st.tuples(NAMES, FILES), max_size=3))
        for name, kind in [(draw(NAMES), "good"), *others]:
            path = "/".join([*around, *folder, *below, f"{name}{EXTENSIONS.get(kind, '.png')}"])
            tree[path] = kind
    if draw(st.integers(0, 9)) == 0:
        tree[draw(NAMES) + ".png"] = "good"
    return {n: k for n, k in tree.items() if not any(o.startswith(f"{n}/") for o in tree)}


def write_tree(folder: Path, tree: dict[str, str]) -> dict[str, bytes]:
    """Writes a tree; its plain files. Each good image has a value of its own."""
    plain = {}
    for i, (name, kind) in enumerate(tree.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind in ("dangling", "circle"):
            os.symlink(path.name if kind == "circle" else "missing", path)
        else:
            plain[name] = {"good": flat(i), "tiny": TINY}.get(kind, b"x")
            path.write_bytes(plain[name])
    return plain


REFUSALS = (
    "found no image among|found 1 image; accepted|found the split folders|found .* beside |, and no class "
    "|found split folders inside|images are usable"
)


def packed_or_refused(path: str, data: Path) -> tuple[dict | None, str, list[str]]:
    """The manifest, or the refusal; and what was logged."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    log = logging.getLogger("duodiff")
    log.addHandler(handler)
    try:
        return packed(IMAGES | {"path": path}, data).manifest, "", messages
    except ValueError as error:
        return None, str(error), messages
    finally:
        log.removeHandler(handler)


def check_counts(names: Iterable[str], manifest: dict) -> None:
    skipped = sum(kind["count"] for kind in manifest["skipped"].values())
    counted = manifest["count"] + skipped + manifest["ignored"] + manifest.get("unused", 0)
    names = list(names)
    assert counted == len(names)
    ignored = [name for name in names if clutter(name) or name.endswith(".txt")]
    assert manifest["ignored"] == len(ignored)
    assert sum(manifest.get("ignored_by_name", {}).values()) == len(ignored)


def check_classes(images: dict[int, str], store: ImageStore, messages: list[str]) -> None:
    """`images` are the names of the good images, by their values."""
    manifest, names = store.manifest, store.manifest["class_names"]
    found = [images[image[0, 0, 0]] for image in store.images]
    assert len(set(found)) == len(found)
    assert not any(map(clutter, found))
    splits = manifest.get("split_folders", {})
    if splits:
        (trained_on,), (held_out_from,) = splits["trained_on"], splits["held_out_from"]
        first = manifest["splits"]["held_out"][0]
        assert all(trained_on in name.split("/") for name in found[:first])
        assert all(held_out_from in name.split("/") for name in found[first:])
    if not names:  # then a warning says so, or all images of a split are in one folder
        stray = any(message.startswith("no classes: ") for message in messages)
        assert stray or len({parent(name, splits) for name in found}) == 1
        return
    folders = {}  # the depth at which the class stands in the names of a split
    for name, label in zip(found, store.labels, strict=True):
        parts = name.split("/")[:-1]
        depths = {i for i, part in enumerate(parts) if part == names[label]}
        top = next((part for part in parts if part in {t for s in splits.values() for t in s}), "")
        folders[top] = folders.get(top, depths) & depths
    assert all(folders.values()), (found, names)


def parent(name: str, splits: dict) -> str:
    """The folder of an image below its split folder."""
    for folder in (name for part in splits.values() for name in part):
        name = name.partition(f"{folder}/")[2] or name
    return name.rpartition("/")[0]


def check_tree(data: Path, tree: dict[str, str]) -> None:
    plain = write_tree(data / "images", tree)
    write_zip(data / "images.zip", plain)
    write_tar(data / "images.tar", plain)
    manifest, refusal, messages = packed_or_refused("images", data)
    if manifest is None:
        event("refused")
        assert re.search(REFUSALS, refusal, re.DOTALL), refusal
        for path in ("images.zip", "images.tar"):
            assert packed_or_refused(path, data)[0] is None
        return
    event("packed with split folders" if "split_folders" in manifest else "packed")
    check_counts(tree, manifest)
    images = {i: name for i, (name, kind) in enumerate(tree.items()) if kind == "good"}
    store = ImageStore(data / "store1/manifest.json")
    check_classes(images, store, messages)
    for path in ("images.zip", "images.tar"):
        archived = packed_or_refused(path, data)[0]
        check_counts(plain, archived)
        assert without_links(archived) == without_links(manifest)


def without_links(manifest: dict) -> dict:
    """A manifest, with the sha256 of pixels and labels, without what an archive cannot hold."""
    skipped = {k: v for k, v in manifest["skipped"].items() if k not in LINKS}
    others = {k: v for k, v in manifest.items() if not k.startswith("ignored")}
    return others | {"skipped": skipped}


@pytest.mark.slow
@given(trees())
@settings(max_examples=60, deadline=None)
def test_no_class_is_silent_and_no_count_is_lost_in_any_folder(tree):
    with tempfile.TemporaryDirectory() as folder:
        check_tree(Path(folder), tree)
