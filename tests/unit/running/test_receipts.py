"""Receipts, the store of finished results, and the fingerprints of what comes from outside."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from duodiff import __main__ as commands
from duodiff.identity import ROOT
from duodiff.running import files, receipts
from duodiff.running.receipts import Plan

WORK = ("workflow_scripts.train_heads", "train_heads")
OUT, WEIGHTS = "results/digits/train0/heads/manifest.json", "results/digits/train0/heads/weights"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(identity="first", inputs=(), outputs=(OUT, WEIGHTS), **given) -> Plan:
    given = {"options": {"lr": 1}, "kept": True} | given
    return Plan(identity, WORK, inputs=list(inputs), outputs=list(outputs), **given)


def finish(plan: Plan, text="trained") -> None:
    """Does a job's work: writes its outputs and its receipt."""
    files.write_json(OUT, {"weights": text})
    files.write_text(WEIGHTS, text)
    receipts.write(plan)


def remove_outputs() -> None:
    shutil.rmtree(Path(OUT).parent)


def in_store(plan: Plan, name: str) -> Path:
    return receipts.STORE / plan.key() / name


# --- the store


def test_a_finished_result_is_taken_by_its_identity_with_its_receipt():
    plan = planned()
    assert not receipts.take(plan)
    finish(plan)
    first = receipts.read(plan.receipt)
    finish(planned("second"), "trained otherwise")
    assert receipts.take(plan)
    assert Path(WEIGHTS).read_text(encoding="utf-8") == "trained"
    assert json.loads(Path(OUT).read_text(encoding="utf-8")) == {"weights": "trained"}
    assert receipts.read(plan.receipt) == first
    assert os.stat(WEIGHTS).st_mtime == pytest.approx(first["finished"], abs=1e-3)
    assert os.path.samefile(WEIGHTS, in_store(plan, "1"))


@pytest.mark.parametrize("with_receipt", [True, False])
def test_a_result_that_is_taken_is_finished_after_its_inputs(with_receipt):
    """An input may have been made again with the same content. Snakemake then sets its time, later than its receipt."""
    images = Path("results/data/digits/manifest.json")
    files.write_json(images, {"images": "digits"})
    plan = planned(inputs=[str(images)])
    finish(plan)
    first = receipts.read(plan.receipt)["finished"]
    made_again = planned("packed", outputs=[str(images)], kept=False)
    receipts.write(made_again)
    again = receipts.read(made_again.receipt)["finished"]
    os.utime(images, (again + 60, again + 60))
    if not with_receipt:
        made_again.receipt.unlink()
    assert receipts.take(plan)
    taken = receipts.read(plan.receipt)
    assert taken["finished"] == pytest.approx(again + 60 * (not with_receipt), abs=1e-3)
    assert taken["finished"] > first
    assert os.stat(OUT).st_mtime == pytest.approx(taken["finished"], abs=1e-3)


def test_another_identity_input_or_path_is_not_in_the_store():
    Path("input").write_text("data", encoding="utf-8")
    plan = planned(inputs=["input"])
    finish(plan)
    remove_outputs()
    assert receipts.take(plan, write_files=False)
    assert not Path(OUT).exists()  # the other processes of a training only ask
    assert not receipts.take(planned("second", ["input"]))
    Path("input").write_text("other data", encoding="utf-8")
    assert not receipts.take(plan)
    Path("input").write_text("data", encoding="utf-8")
    assert not receipts.take(planned(inputs=["input"], outputs=[OUT, f"{WEIGHTS}.copy"]))
    assert not receipts.take(planned(inputs=["input"], kept=False))


def test_inputs_count_by_content_and_not_by_what_is_said_of_their_making():
    files.write_json("input.json", {"steps": 4, "made": {"commit": "a"}})
    Path("images.npy").write_bytes(b"pinned by a manifest")
    plan = planned(inputs=["input.json", "images.npy"])
    before = plan.key()
    Path("input.json").write_text('{"made": {"commit": "b"},   "steps": 4.0}', encoding="utf-8")
    Path("images.npy").write_bytes(b"rewritten")
    assert plan.key() == before
    files.write_json("input.json", {"steps": 5})
    assert plan.key() != before


@pytest.mark.parametrize("damage", ["bytes", "gone", "no receipt", "receipt"])
def test_a_damaged_result_is_named_and_not_taken(caplog, damage):
    plan = planned()
    finish(plan)
    remove_outputs()
    kept = in_store(plan, "receipt.json" if "receipt" in damage else "1")
    if damage in ("gone", "no receipt"):
        kept.unlink()
    else:
        kept.write_text("{", encoding="utf-8")
    assert not receipts.take(plan)
    assert plan.key() in caplog.text
    assert "computed again" in caplog.text
    assert not Path(OUT).exists()
    finish(plan)  # and the result that is computed again takes its place
    remove_outputs()
    assert receipts.take(plan)


def test_a_file_system_without_links_gets_copies(monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    plan = planned()
    finish(plan)
    assert in_store(plan, "1").read_text(encoding="utf-8") == "trained"
    assert not os.path.samefile(WEIGHTS, in_store(plan, "1"))
    remove_outputs()
    assert receipts.take(plan)
    assert Path(WEIGHTS).read_text(encoding="utf-8") == "trained"
    assert not os.path.samefile(WEIGHTS, in_store(plan, "1"))


def test_an_output_that_is_written_anew_leaves_the_kept_file_as_it_was():
    plan = planned()
    finish(plan)
    assert os.path.samefile(WEIGHTS, in_store(plan, "1"))
    files.write_text(WEIGHTS, "trained anew")
    assert in_store(plan, "1").read_text(encoding="utf-8") == "trained"
    # a file that is changed in place, by another program, changes the kept one: its hash tells
    assert receipts.take(plan)
    with open(WEIGHTS, "a", encoding="utf-8") as file:
        file.write("!")
    assert not receipts.take(plan)


def test_a_kill_while_a_result_is_kept_leaves_nothing_to_take(monkeypatch):
    plan = planned()

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", kill)
        with pytest.raises(KeyboardInterrupt):
            finish(plan)
    assert not receipts.take(plan)
    (half,) = receipts.unneeded(Path("results"))
    assert half.name.startswith(f".{plan.key()}.")


def test_results_of_one_identity_at_two_places_are_both_kept():
    """The same training in two experiments."""
    there = planned(outputs=["results/other/train0/heads/manifest.json"])
    finish(planned())
    files.write_text(there.outputs[0], "trained elsewhere")
    receipts.write(there)
    assert receipts.take(planned())
    assert receipts.take(there)


def test_two_processes_of_one_job_keep_its_result_once(monkeypatch):
    """SLURM may start a job on a second node while the first one is at work (docs/cluster.md)."""
    plan = planned()
    finish(plan)
    replace = os.replace

    def replace_second(source, target):
        if Path(source).is_dir():
            shutil.copytree(source, target)  # the other process was first
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_second)
    receipts._keep(plan, plan.outputs)
    assert os.listdir(receipts.STORE) == [plan.key()]
    remove_outputs()
    assert receipts.take(plan)


# --- what nothing needs


def test_clean_lists_with_sizes_and_removes_what_no_result_needs(caplog):
    caplog.set_level(logging.INFO, logger="duodiff")
    finish(planned(), "x" * 1_000_000)
    old, new = planned(), planned("second")
    finish(new)
    state = Path("results/digits/train0/.resume/heads-0123")
    codec = Path("results/data/latent/.resume/autoencoder-0123")
    unfinished = Path("results/digits/train0/.resume/full-0123")
    for path in (state, codec, unfinished):
        path.mkdir(parents=True)
        (path / "state").write_bytes(bytes(1_000_000))
    files.write_json("results/data/latent/autoencoder/config.json", {})
    listed = commands.clean()
    assert listed == "3 folders, 4.0 MB, found; --remove removes them"
    lines = "\n".join(caplog.messages)
    assert f"2.0 MB  {receipts.STORE / old.key()}  a result of another identity: {OUT}" in lines
    for path in (state, codec):
        assert f"1.0 MB  {path}  the state of a training" in lines
    assert in_store(old, "1").exists()
    assert commands.clean(remove=True) == "3 folders, 4.0 MB, removed"
    assert [path.name for path in receipts.STORE.iterdir()] == [new.key()]
    assert (unfinished / "state").exists()
    assert not state.exists()
    assert not codec.exists()
    assert commands.clean().startswith("0 folders")


def test_the_state_of_a_training_under_way_is_needed():
    finish(planned())
    state = Path("results/digits/train0/.resume/heads-4567")
    state.mkdir(parents=True)
    assert state in receipts.unneeded(Path("results"))
    remove_outputs()  # as Snakemake does before it trains again; the receipt of before is still there
    assert state not in receipts.unneeded(Path("results"))


def test_clean_names_a_damaged_receipt(caplog):
    plan = planned()
    finish(plan)
    plan.receipt.write_text("{", encoding="utf-8")
    assert list(receipts.unneeded(Path("results"))) == [receipts.STORE / plan.key()]
    assert f"{plan.receipt}: damaged" in caplog.text


def made(*paths: str) -> Plan:
    """A finished job that wrote these files."""
    for path in paths:
        files.write_text(path, path)
    plan = planned(outputs=paths, kept=False)
    receipts.write(plan)
    return plan


def test_others_are_removed_by_their_receipts_and_files_of_a_user_stay():
    kept = made("results/tables/table1.csv", "results/tables/table1.md")
    gone = made("results/figures/figure1.csv", "results/figures/figure1.png")
    edited = made("results/figures/figure9.csv", "results/figures/figure9.png")
    elsewhere = made("results/other/figure1.csv")
    Path("results/figures/figure9.png").write_text("drawn on", encoding="utf-8")
    Path("results/figures/mine.png").write_text("mine", encoding="utf-8")
    wanted = {kept.outputs[0]}
    removed = receipts.remove_others(["tables", "figures"], wanted)
    assert removed == [*gone.outputs, "results/figures/figure9.csv"]
    left = {str(path) for path in Path("results").rglob("*.*") if path.is_file()}
    assert {path for path in left if "receipts" not in path} == {
        *kept.outputs,
        *elsewhere.outputs,
        "results/figures/figure9.png",
        "results/figures/mine.png",
    }
    assert [plan.receipt.exists() for plan in (kept, gone, edited, elsewhere)] == [1, 0, 0, 1]
    assert receipts.remove_others(["tables", "figures"], wanted) == []


# --- what a receipt tells


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"identity": "a"}'])
def test_a_damaged_receipt_is_named(content):
    path = Path("receipt.json")
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"receipt\.json: damaged"):
        receipts.read(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        receipts.read(path)


def test_differences_are_named_by_key_and_by_definition():
    finish(planned(options={"training": {"lr": 1, "steps": 2}, "seed": 0}))
    receipt = receipts.read(planned().receipt)
    same = {"seed": 0.0, "training": {"steps": 2, "lr": 1.0}}
    assert list(receipts.differences(receipt, WORK, same)) == []
    other = {"training": {"lr": 0.5, "steps": 2}, "seed": 0, "images": 4}
    assert list(receipts.differences(receipt, WORK, other)) == [
        "images: null is now 4",
        "training.lr: 1 is now 0.5",
    ]
    name = next(name for name in receipt["code"] if name.endswith(": train_heads"))
    receipt["code"][name] = "0"
    receipt["code"]["duodiff.elsewhere: gone_function"] = "0"
    assert set(receipts.differences(receipt, WORK, same)) == {
        name,
        "duodiff.elsewhere: gone_function",
    }


def test_a_moved_definition_is_no_difference():
    finish(planned())
    receipt = receipts.read(planned().receipt)
    receipt["code"] = {
        f"duodiff.elsewhere.{label}": digest for label, digest in receipt["code"].items()
    }
    assert list(receipts.differences(receipt, WORK, {"lr": 1})) == []


def test_inputs_that_changed_are_named_and_missing_ones_are_not():
    files.write_json("a.json", {"n": 1})
    Path("b").write_text("b", encoding="utf-8")
    finish(planned(inputs=["a.json", "b"]))
    receipt = receipts.read(planned().receipt)
    assert receipts.changed_inputs(receipt) == []
    Path("a.json").write_text('{"n": 1.0}', encoding="utf-8")
    assert receipts.changed_inputs(receipt) == []
    files.write_json("a.json", {"n": 20})
    assert receipts.changed_inputs(receipt) == ["a.json"]
    Path("b").unlink()
    assert receipts.changed_inputs(receipt) == ["a.json"]


def test_inputs_that_came_and_went_are_named_and_the_number_of_shards_is_none():
    receipt = {"inputs": {"full.json": "a", "shallow.json": "b", "shards/0-of-1.json": "c"}}
    receipt["inputs"]["cell/shards/0-of-1/manifest.json"] = "d"
    shards = [f"cell/shards/{i}-of-2/{name}" for i in (0, 1) for name in ("manifest.json", "a.npy")]
    found = receipts.other_inputs(receipt, ["full.json", "shards/0-of-1.json", "a.npy", *shards])
    assert found == ["shallow.json is no input now"]
    found = receipts.other_inputs(receipt, [*receipt["inputs"], "heads.json"])
    assert found == ["heads.json is a new input"]


def test_outputs_get_the_time_at_which_they_were_finished():
    finish(planned())
    receipt = receipts.read(planned().receipt)
    os.utime(OUT, (1, 1))
    Path(WEIGHTS).unlink()
    receipts.set_times(receipt)
    assert os.stat(OUT).st_mtime == pytest.approx(receipt["finished"])


# --- what comes from outside


def test_inputs_that_tell_of_what_was_fetched_are_known():
    weights = Path("data/inception.pth")
    files.write_text(weights, "weights")
    paths = {"inception": "results/data/inception.json", "a": "results/data/a/manifest.json"}
    fetch, pack = (
        planned(outputs=[path], kept=False, watched={name: str(weights)})
        for name, path in paths.items()
    )
    for plan in (fetch, pack):
        files.write_json(plan.outputs[0], {})
        receipts.write(plan)
    files.write_json("results/other.json", {})
    inputs = [*fetch.outputs, *pack.outputs, "results/other.json"]
    assert receipts.fetched(planned(inputs=inputs)) == fetch.outputs


@pytest.fixture
def images(folder) -> Path:
    """A folder of four files in two class folders."""
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/deep/2.png"):
        path = folder / "data/images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
        os.utime(path, (1_000_000, 1_000_000))
    return Path("data/images")


def replace(path: Path, text: str, seconds: int = 2_000_000) -> None:
    path.write_text(text, encoding="utf-8")
    os.utime(path, (seconds, seconds))


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The files whose hash is computed."""
    found: list[str] = []

    def listing(path):
        found.append(str(path))
        return files.sha256(path)

    monkeypatch.setattr(receipts, "sha256", listing)
    return found


def one_replaced(images):
    replace(images / "cat/1.png", "CAT/1.png")


def one_added(images):
    replace(images / "cat/3.png", "new", 1)


def one_removed(images):
    (images / "dog/deep/2.png").unlink()


def class_deleted(images):
    shutil.rmtree(images / "dog")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (one_replaced, ["cat/1.png has changed"]),
        (one_added, ["cat/3.png is new"]),
        (one_removed, ["dog/deep/2.png is gone"]),
        (class_deleted, ["dog/1.png is gone", "dog/deep/2.png is gone"]),
    ],
)
def test_each_change_of_a_folder_is_named(images, edit, named):
    before = receipts.fingerprint(images)
    assert receipts.changed_outside(images, before) == ([], before)
    edit(images)
    found, _ = receipts.changed_outside(images, before)
    assert found == [f"{images}/{change}" for change in named]


def test_a_replaced_file_is_named(folder):
    path = folder / "shapes.zip"
    replace(path, "a zip", 1)
    before = receipts.fingerprint(path)
    replace(path, "a zip", 2)
    assert receipts.changed_outside(path, before)[0] == []
    replace(path, "a ZIP", 3)
    assert receipts.changed_outside(path, before)[0] == [f"{path} has changed"]
    path.unlink()
    assert receipts.changed_outside(path, before) == ([], before)


def test_a_missing_path_has_not_changed_and_one_that_appears_has(images):
    before = receipts.fingerprint(images)
    shutil.move(images, "moved")
    assert receipts.changed_outside(images, before) == ([], before)
    assert receipts.fingerprint(images) == {}
    shutil.move("moved", images)
    assert len(receipts.changed_outside(images, {})[0]) == 4


def test_a_link_to_a_folder_is_not_followed_and_a_broken_link_is_no_file(images):
    before = receipts.fingerprint(images)
    (images / "cat/loop").symlink_to(images.resolve())
    (images / "cat/nothing.png").symlink_to("nowhere")
    (images / "cat/circle.png").symlink_to("circle.png")
    assert receipts.changed_outside(images, before) == ([], before)


def test_what_a_system_leaves_in_a_folder_is_not_watched(images):
    before = receipts.fingerprint(images)
    for name in ("cat/@eaDir/1.png/SYNOPHOTO.jpg", "Thumbs.db", "cat/.DS_Store"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(b"x")
    assert receipts.fingerprint(images) == before
    assert receipts.changed_outside(images, before) == ([], before)
    # a receipt of before may name them
    older = before | {"Thumbs.db": [1, 1, "0"], "gone/.DS_Store": [1, 1, "0"]}
    assert receipts.changed_outside(images, older) == ([], before)


def reading(images) -> tuple[Path, dict, dict]:
    """The receipt of a job that read the images; the paths it read and its options, by name."""
    watched, options = {"images": images}, {"dataset": {"path": "images"}}
    plan = planned(options=options, watched={k: str(path) for k, path in watched.items()})
    finish(plan)
    return plan.receipt, watched, options


def test_new_times_pass_after_the_files_with_new_times_are_read_once(images, hashed):
    receipt, watched, options = reading(images)
    hashed.clear()
    assert receipts.check_outside(receipt, watched, options) == []
    assert hashed == []
    os.utime(images / "cat/2.png", (3, 3))
    assert receipts.check_outside(receipt, watched, options) == []
    assert hashed == [str(images / "cat/2.png")]
    assert receipts.check_outside(receipt, watched, options) == []
    assert len(hashed) == 1  # the new time is noted
    one_replaced(images)
    changes = receipts.check_outside(receipt, watched, options)
    assert changes == [f"{images}/cat/1.png has changed"]
    assert receipts.check_outside(receipt, watched, options) == changes  # and a change is not


def test_a_moved_data_folder_is_compared_by_its_content(images, hashed):
    receipt, _, options = reading(images)
    shutil.copytree("data", "elsewhere")
    watched = {"images": Path("elsewhere/images")}
    assert receipts.check_outside(receipt, watched, options) == []
    one_replaced(watched["images"])
    assert len(receipts.check_outside(receipt, watched, options)) == 1


def test_a_receipt_of_other_options_and_a_damaged_one_stop_no_run(images):
    receipt, watched, options = reading(images)
    one_added(images)
    assert receipts.check_outside(receipt, watched, options)
    assert receipts.check_outside(receipt, watched, {"dataset": {"path": "b"}}) == []
    receipt.write_text("{", encoding="utf-8")
    assert receipts.check_outside(receipt, watched, options) == []
    receipt.unlink()
    assert receipts.check_outside(receipt, watched, options) == []


def test_the_hashes_of_an_inputs_receipt_are_not_computed_again(images, hashed):
    out = "results/data/shapes/fetched.json"
    fetched = planned("fetch", outputs=[out], kept=False, watched={"images": "data/images"})
    files.write_json(out, {})
    receipts.write(fetched)
    assert sum("data/images" in path for path in hashed) == 4
    hashed.clear()
    one_replaced(images)
    packed = planned(inputs=fetched.outputs, watched=fetched.watched)
    finish(packed)
    assert [path for path in hashed if "data/images" in path] == [str(images / "cat/1.png")]
    known = receipts.read(packed.receipt)["watched"]["images"]
    assert known == receipts.fingerprint(images)


def test_folders_of_many_files_are_compared_by_their_times_alone(images, hashed, monkeypatch):
    monkeypatch.setattr(receipts, "_MOST_FILES", 3)
    before = receipts.fingerprint(images)
    assert sorted(before) == ["./", "cat/", "dog/", "dog/deep/"]
    assert receipts.changed_outside(images, before) == ([], before)
    times = os.stat(images / "cat").st_mtime_ns
    one_replaced(images)  # in place: the blind spot that docs/robustness.md names
    assert os.stat(images / "cat").st_mtime_ns == times
    assert receipts.changed_outside(images, before)[0] == []
    one_added(images)
    assert receipts.changed_outside(images, before)[0] == [f"{images}/cat has changed"]
    class_deleted(images)
    found = receipts.changed_outside(images, before)[0]
    assert {f"{images}/dog is gone", f"{images} has changed"} <= set(found)
    assert hashed == []


# --- results that travel


def test_a_result_that_travels_is_found_in_the_store_of_another_folder(tmp_path, monkeypatch):
    plan = planned()
    finish(plan)
    shipped = tmp_path / "shipped/heads"
    receipts.give(Path("results"), Path(OUT), shipped)
    assert {path.name for path in shipped.iterdir()} == {"manifest.json", "weights", "receipt.json"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert not receipts.take(plan)
    assert receipts.receive(shipped) == [OUT, WEIGHTS]
    assert receipts.take(plan)
    assert Path(WEIGHTS).read_text(encoding="utf-8") == "trained"


def test_a_result_of_other_code_is_not_received(tmp_path):
    finish(planned())
    shipped = tmp_path / "shipped/heads"
    receipts.give(Path("results"), Path(OUT), shipped)
    receipt = receipts.read(shipped / "receipt.json")
    (name, *_) = receipt["code"]
    receipt["code"][name] = "0" * 64
    files.write_json(shipped / "receipt.json", receipt)
    with pytest.raises(ValueError, match=r"made by other code .*train_heads.*; accepted: a result"):
        receipts.receive(shipped)


def test_networks_are_put_into_the_store_by_the_command(tmp_path):
    plan = planned()
    finish(plan)
    receipts.give(Path("results"), Path(OUT), tmp_path / "study/digits/networks/heads")
    shutil.rmtree(receipts.STORE)
    assert not receipts.take(plan)
    assert commands.networks(tmp_path / "study") == f"1 networks: {OUT}"
    assert receipts.take(plan)
    with pytest.raises(FileNotFoundError, match="accepted: a folder that ship wrote"):
        commands.networks(tmp_path)


FINDS = """
import json, sys
sys.argv = ["train_heads.py", "--plan", {plan!r}, "--log", "job.log"]
from duodiff.running import job
with job.importing():
    import a_library_that_is_not_there
"""


def found_before_imports(planned: dict) -> subprocess.CompletedProcess:
    """A script with this plan, whose imports fail."""
    program = [sys.executable, "-c", FINDS.format(plan=json.dumps(planned))]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        program, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )


def test_a_result_that_the_store_has_costs_a_job_no_import():
    said = {"options": {"lr": 1}, "inputs": [], "outputs": [OUT, WEIGHTS], "kept": True}
    finish(receipts.begun([*WORK], **said))
    remove_outputs()
    done = found_before_imports({"work": WORK, **said})
    message = "train_heads: found finished in results/.store"
    assert (done.returncode, done.stderr.strip()) == (0, message)
    assert Path("job.log").read_text(encoding="utf-8").strip() == message
    assert Path(WEIGHTS).read_text(encoding="utf-8") == "trained"
    for other in ({"options": {"lr": 2}}, {"kept": False}):
        done = found_before_imports({"work": WORK, **said, **other})
        assert done.returncode == 1
        assert "a_library_that_is_not_there" in done.stderr
