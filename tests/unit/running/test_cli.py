"""`python -m duodiff`: what it refuses before torch is imported, and how it finds a study's models."""

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from duodiff import __main__ as commands
from duodiff.running import job, receipts
from duodiff.running.files import read_json, write_json
from duodiff.settings import Setting
from duodiff.study.folder import Study

RUN = """
import runpy, sys
sys.argv[0] = "duodiff"
try:
    runpy.run_module("duodiff", run_name="__main__")
finally:
    print("torch" in sys.modules)
"""

ENDING = """
{imported}
from duodiff.running import job
class Kept:
    def __del__(self):
        print("taken apart")
kept = Kept()
def work() -> str:
    print("worked")
    return "done"
job.run(work)
print("returned")
"""


@pytest.fixture
def results(tmp_path) -> Path:
    """Two studies without weights: `a`, and `b` which samples with the full backbone of `a`."""
    for name, role, digest in (
        ("a", "full", "f"),
        ("a", "shallow", "1"),
        ("b", "shallow", "2"),
        ("b", "heads", "3"),
    ):
        manifest = {
            "weights_sha256": digest,
            "architecture": {"depth": 5, "num_classes": 4 if name == "b" else 3},
            "null_class": name == "b",
            "dataset_sha256": "c0",
        }
        write_json(tmp_path / name / "train0" / role / "manifest.json", manifest)
        (tmp_path / name / "train0" / role / "model.safetensors").touch()
    packed = {"images_sha256": "c0", "class_names": ["cat", "1", "owl"]}
    write_json(tmp_path / "data/animals/manifest.json", packed)
    cells = {
        ("a", "duodiff/t_s=500"): ({"t_s": 500}, {"full": "f", "shallow": "1"}),
        ("b", "duodiff/t_s=1000"): ({"t_s": 1000}, {"shallow": "2"}),
        ("b", "duodiff/t_s=300"): ({"t_s": 300}, {"full": "f", "shallow": "2"}),
        ("b", "adadiff/theta=q0.4"): ({"setting": "q0.4", "theta": 0.1}, {"full": "f"}),
    }
    for (name, path), (parameters, digests) in cells.items():
        manifest = {
            "experiment": name,
            "protocol": "corrected",
            "train_seed": 0,
            "schedule": "linear",
            "time_input": "t",
            "class_order": None,
            "compute_batch": 64,
            "parameters": parameters,
            "dtype": "float32",
            "compiled": False,
            "sampler": {"name": "ddpm", "steps": 20, "guidance": 0.4},
            "seed": 0,
            "checkpoint_sha256": digests,
        }
        folder = tmp_path / name / "train0/samples/ddpm" / path / "seed0"
        write_json(folder / "manifest.json", manifest)
        for array in ("images", "labels", "blocks_run"):
            (folder / f"{array}.npy").touch()
    return tmp_path


def duodiff(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--t-s", "1001"], "t_s: found 1001; accepted: 0 to 1000"),
        (["--theta", "1.5"], "theta: found 1.5; accepted: 0 to 1, or a quantile from q0 to q1"),
        (["--theta", "often"], "theta: found often; accepted"),
        ([], "setting: accepted: one of --t-s, --theta and --schedule"),
        (["--t-s", "0", "--theta", "0.1"], "setting: accepted: one of --t-s, --theta and"),
        (["--schedule", "three"], "schedule: found 'three'; accepted: none; the samples have none"),
        (
            ["--t-s", "0", "--sampler", "nosuch"],
            "sampler: found 'nosuch'; accepted: ddpm, ddim, dpm_solver_pp",
        ),
        (["--t-s", "0", "--steps", "1"], "steps: found 1; accepted: 2 to 1000"),
        (["--t-s", "0", "--eta", "0.5"], "eta: found 0.5 for ddpm; accepted"),
        (["--t-s", "0", "--images", "0"], "images: found 0; accepted: 1 or more"),
        (["--t-s", "0", "--batch", "0"], "batch: found 0; accepted: 1 or more"),
        (["--theta", "0.2"], "heads/manifest.json: there is no heads checkpoint"),
        (["--t-s", "0", "--guidance", "-1"], "guidance: found -1.0; accepted: 0 (none) or more"),
        (["--t-s", "0", "--guidance", "2"], "guidance: found 2.0 for networks that were trained"),
        (["--t-s", "0", "--classes", "3"], "found 3; accepted: 0 to 2, or names such as cat"),
        (["--t-s", "0", "--classes"], "classes: found none; accepted: one or more"),
    ],
)
def test_bad_values_and_missing_checkpoints_are_refused_before_torch(results, arguments, message):
    done = duodiff("sample", results / "a/train0", "--out", results / "out", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "False"
    assert not (results / "out").exists()


def test_results_of_a_run_are_not_replaced(results):
    for out in ("a/train0/mine", "data/animals"):
        done = duodiff("sample", results / "a/train0", "--t-s", "0", "--out", results / out)
        assert done.returncode == 1
        assert f"out: found {results / out}, " in done.stderr
        assert "accepted: a folder elsewhere" in done.stderr


def test_every_argument_of_every_command_is_explained():
    named = ("sample", "info", "cost", "verify", "ship", "networks", "clean")
    for command in (getattr(commands, name) for name in named):
        parser = argparse.ArgumentParser(**job._help(command))
        job._add_options(parser, command)
        for action in parser._actions:
            said = (action.help or "").partition("(default")[0]
            assert len(said) > 10, (command.__name__, action.dest)
        assert "- `" not in parser.format_help()


def test_a_study_samples_as_its_own_steps_though_it_has_cells_of_fewer(results):
    before = Study(results / "a/train0")
    own = next(path for path in before.paths if "ddpm" in path.parts)
    manifest = read_json(own)
    steps = manifest["sampler"]["steps"]
    fewer = results / "a/train0/samples/ddpm/steps=2" / Path(*own.parts[-4:])
    write_json(fewer, manifest | {"sampler": manifest["sampler"] | {"steps": 2}})
    study = Study(results / "a/train0")
    assert len(study.paths) == len(before.paths) + 1
    assert study.sampler("ddpm", None, None) == before.sampler("ddpm", None, None)
    assert f"samples of ddpm, steps {steps}" in study.describe()
    assert "samples of ddpm, steps 2" in study.describe()


def test_classes_are_named_or_numbered(results):
    study = Study(results / "a/train0")
    manifest = study.checkpoint("full")
    assert study.labels(["owl", "0", "1"], manifest) == [2, 0, 1]
    (results / "data/animals/manifest.json").unlink()
    assert study.labels(["2", "1"], manifest) == [2, 1]
    with pytest.raises(ValueError, match=r"classes: found owl; accepted: 0 to 2$"):
        study.labels(["owl"], manifest)
    # the null class is none of them
    guided = Study(results / "b/train0").checkpoint("shallow")
    assert study.labels(["2"], guided) == [2]
    with pytest.raises(ValueError, match="classes: found 3; accepted: 0 to 2"):
        study.labels(["3"], guided)
    write_json(manifest, read_json(manifest) | {"architecture": {"num_classes": -1}})
    with pytest.raises(ValueError, match="networks without classes"):
        study.labels(["0"], manifest)


def test_pictures_of_an_earlier_call_are_removed_and_nothing_else(tmp_path):
    write_json(tmp_path / "manifest.json", {"count": 2, "sampler": {}})
    (tmp_path / "images").mkdir()
    for name in ("grid.png", "images/000000.png", "images/000001.png", "images/000002.png"):
        (tmp_path / name).touch()
    commands._remove_pictures(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["000002.png"]
    (tmp_path / "images/000002.png").rename(tmp_path / "images/000001.png")
    commands._remove_pictures(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json"]
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "grid.png").touch()  # of someone else
    commands._remove_pictures(tmp_path)
    assert (tmp_path / "grid.png").exists()


def test_a_folder_that_is_not_there_is_named_with_those_that_are(results, monkeypatch, tmp_path):
    (tmp_path / "results").mkdir()
    for name in ("a", "b"):
        (results / name).rename(tmp_path / "results" / name)
    monkeypatch.chdir(tmp_path)
    done = duodiff("info", "results/c/train0")
    assert done.returncode == 1
    assert "results/c/train0: found no such folder; accepted: the folder results/" in done.stderr
    assert "found here: results/a/train0, results/b/train0" in done.stderr


def test_removed_weights_and_arrays_are_named_with_the_command_that_makes_them(
    results, monkeypatch, tmp_path
):
    (tmp_path / "results").mkdir()
    for name in ("a", "b"):
        (results / name).rename(tmp_path / "results" / name)
    monkeypatch.chdir(tmp_path)
    study = Study(Path("results/b/train0"))
    assert "missing" not in study.describe()
    weights = Path("results/b/train0/shallow/model.safetensors")
    images = next(Path("results/b/train0/samples").glob("*/*/t_s=300/*/images.npy"))
    weights.unlink()
    images.unlink()
    command = f"snakemake --cores all {weights}"
    with pytest.raises(FileNotFoundError, match=f"{weights}: found no such file.*{command}"):
        study.models(Setting.parse("t_s=300"))
    assert set(study.models(Setting.parse("t_s=0"))) == {"full"}
    said = study.describe()
    assert f"missing: {weights}; if it was removed to save disk: {command}" in said
    assert f"missing: {images}" in said
    # another folder's weights of the same hash do
    other = Path("results/a/train0/shallow/manifest.json")
    write_json(other, read_json(other) | {"weights_sha256": "2"})
    assert study.checkpoint("shallow").samefile(other)


def test_removed_weights_of_an_autoencoder_that_was_trained_here_are_named(
    tmp_path, monkeypatch, results
):
    (results / "a").rename(tmp_path / "a_study")
    (tmp_path / "results").mkdir()
    (tmp_path / "a_study").rename(tmp_path / "results/a")
    monkeypatch.chdir(tmp_path)
    folder = Path("results/data/faces/autoencoder")
    made = {"path": str(folder), "weights_sha256": "a5"}
    for path in Path("results/a").rglob("seed0/manifest.json"):
        write_json(path, read_json(path) | {"autoencoder": made})
    write_json(folder / "config.json", {})
    study = Study(Path("results/a/train0"))
    command = f"snakemake --cores all {folder}/diffusion_pytorch_model.safetensors"
    assert command in study.describe()
    with pytest.raises(FileNotFoundError, match=command):
        study.autoencoder()
    (folder / "diffusion_pytorch_model.safetensors").touch()
    assert "missing" not in study.describe()
    assert study.autoencoder()["path"] == str(folder.resolve())


def test_a_file_that_is_gone_is_one_line_with_what_makes_it(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for path in ("results/a/train0/full/x.npy", "y"):
        monkeypatch.setattr(sys, "argv", ["read", "--path", path])
        with pytest.raises(SystemExit):
            job.run(_read)
        message = next(m for m in reversed(caplog.messages) if m)
        assert message.startswith(f"_read: {path}: found no such file")
        assert "Errno" not in message
        assert ("snakemake --cores all results/a" in message) == path.startswith("results")


def _read(path: Path) -> str:
    """Read it."""
    return path.read_text(encoding="utf-8")


def test_early_exit_is_refused_where_samples_are_guided(results):
    done = duodiff("sample", results / "b/train0", "--out", results / "out", "--theta", "0.2")
    assert "are guided, early exit is not; accepted: --t-s" in done.stderr
    assert (done.returncode, done.stdout.strip()) == (1, "False")


def test_help_and_info_need_no_torch(results):
    done = duodiff("--help")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False")
    assert "Sample images from the checkpoints" in done.stdout
    done = duodiff("info", results / "b/train0")
    assert (done.returncode, done.stdout.strip()) == (0, "False")
    assert "b, corrected protocol" in done.stderr
    assert str(results / "a/train0/full/manifest.json") in done.stderr
    assert done.stderr.index("t_s=300") < done.stderr.index("t_s=1000")


def test_a_schedule_is_sampled_by_its_name_as_the_samples_have_it(results):
    own = next((results / "b/train0/samples").glob("*/*/t_s=300/seed0/manifest.json"))
    intervals = {"ddpm": [["shallow", 300, 999], ["middle", 0, 299]], "ddim": [["full", 0, 999]]}
    for sampler, found in intervals.items():
        parameters = {"schedule": "two", "intervals": found, "timesteps": [999, 500, 0]}
        manifest = read_json(own) | {"parameters": parameters}
        manifest["sampler"] = manifest["sampler"] | {"name": sampler}
        manifest["checkpoint_sha256"] = {"shallow": "2", "middle": "4"}
        path = results / f"b/train0/samples/{sampler}/schedule/schedule=two/seed0/manifest.json"
        write_json(path, manifest)
    middle = {"weights_sha256": "4", "architecture": {"depth": 5}}
    write_json(results / "b/train0/middle/manifest.json", middle)
    (results / "b/train0/middle/model.safetensors").touch()
    study = Study(results / "b/train0")
    for sampler, found in (intervals | {"dpm_solver_pp": intervals["ddim"]}).items():
        named = study.schedule("two", sampler).named_schedule
        assert list(map(list, named.intervals)) == found
    assert set(study.models(study.schedule("two", "ddpm"))) == {"shallow", "middle"}
    assert "schedule=two" in study.describe()
    assert "  middle   5 blocks" in study.describe()
    with pytest.raises(ValueError, match="schedule: found 'three'; accepted: two"):
        study.schedule("three", "ddpm")
    arguments = ["--schedule", "two", "--steps", "20", "--out", results / "out"]
    done = duodiff("sample", results / "b/train0", *arguments)
    assert "steps: found 20 for schedule=two, which has timesteps of its own" in done.stderr
    assert (done.returncode, done.stdout.strip()) == (1, "False")


def test_a_folder_without_samples_is_refused(results):
    done = duodiff("info", results / "a")
    assert done.returncode == 1
    assert "found no samples; accepted: the folder results/<experiment>/train<seed>" in done.stderr


def test_a_setting_has_the_models_it_needs_and_no_others(results):
    study = Study(results / "b/train0")
    (results / "b/train0/profile").mkdir()
    (results / "b/train0/profile/quantiles.json").touch()
    needed = {
        "t_s=0": {"full"},
        "t_s=1": {"full", "shallow"},
        "t_s=1000": {"shallow"},
        "theta=0.2": {"full", "heads"},
        "theta=q0.2": {"full", "heads", "quantiles"},
    }
    assert {setting: set(study.models(Setting.parse(setting))) for setting in needed} == needed
    # another experiment's backbone, by the hash that the samples name
    assert study.checkpoint("full") == results / "a/train0/full/manifest.json"
    assert study.checkpoint("shallow") == results / "b/train0/shallow/manifest.json"


def test_a_device_that_is_not_there_is_refused(monkeypatch, caplog):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device, found in (("cuda", "'cuda' where torch sees no GPU"), ("gpu", "'gpu'")):
        monkeypatch.setattr(sys, "argv", ["sample", "--device", device])
        with pytest.raises(SystemExit) as stopped:
            job.run(_on_device)
        assert stopped.value.code == 1
        assert f"device: found {found}; accepted: cpu" in caplog.text


def _on_device(device: str) -> str:
    """Not to be called."""
    raise AssertionError(device)


def test_a_study_is_compiled_where_a_cell_is(results):
    last = sorted(results.glob("b/train0/samples/**/manifest.json"))[-1]
    write_json(last, read_json(last) | {"compiled": True})
    assert Study(results / "b/train0").compiled
    assert not Study(results / "a/train0").compiled


def test_samplers_are_the_grids_with_what_is_given(results):
    study = Study(results / "a/train0")
    assert study.sampler("ddpm", None, None) == {"name": "ddpm", "steps": 20, "guidance": 0.4}
    assert study.sampler("ddpm", None, None, 0.0) == {"name": "ddpm", "steps": 20}
    assert study.sampler("ddpm", None, None, 1.5)["guidance"] == 1.5
    assert study.sampler("ddpm", 7, None) == {"name": "ddpm", "steps": 7, "guidance": 0.4}
    ddim = {"name": "ddim", "steps": 50, "eta": 0, "guidance": 0.4}
    assert study.sampler("ddim", None, None) == ddim
    assert study.sampler("ddim", None, 0.5) == ddim | {"eta": 0.5}
    dpm = {"name": "dpm_solver_pp", "steps": 20, "guidance": 0.4}
    assert study.sampler("dpm_solver_pp", None, None) == dpm


def test_a_jobs_line_says_how_long_it_took_and_where_the_result_is(tmp_path, monkeypatch, caplog):
    def write(out: Path, twice: bool = False) -> str:
        """Write it."""
        return f"written {1 + twice} times"

    out = tmp_path / "x.json"
    monkeypatch.setattr(job, "log", logging.getLogger("duodiff.test"))  # keeps its handlers
    monkeypatch.setattr(sys, "argv", ["write", "--out", str(out), "--twice"])
    job.run(write)
    line = caplog.messages[-1]
    assert line.startswith("write: written 2 times (")
    assert line.endswith(f" s; {out})")


@pytest.mark.parametrize(
    ("imported", "printed"),
    [
        pytest.param("import torch", "worked\n", marks=pytest.mark.slow),
        ("", "worked\nreturned\ntaken apart\n"),
    ],
)
def test_what_torch_imported_is_not_taken_apart_and_nothing_said_is_lost(imported, printed):
    program = [sys.executable, "-c", ENDING.format(imported=imported)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout == printed
    assert done.stderr == "work: done\n"


@pytest.mark.parametrize(
    ("folder", "given", "kept"),
    [
        ("study", None, "study/results/.compiled/A-processor-R-2"),
        ("study", "elsewhere", "elsewhere"),
        ("my study", None, None),  # a compiler's shell would see two words
    ],
)
def test_what_a_job_of_a_study_compiles_is_kept_in_the_studys_folder(
    tmp_path, monkeypatch, folder, given, kept
):
    work = tmp_path.resolve() / folder
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(job.provenance, "cpu_name", lambda: "A processor (R) 2")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", given or "")
    if given is None:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    plan = receipts.Plan("", ("", ""), {}, [], [])
    monkeypatch.setattr(receipts, "begun", lambda **planned: plan)
    monkeypatch.setattr(receipts, "take", lambda plan, write_files: False)
    monkeypatch.setattr(receipts, "write", lambda plan: None)
    found = []

    def look() -> str:
        """Looks."""
        found.append(os.environ.get("TORCHINDUCTOR_CACHE_DIR"))
        return "looked"

    monkeypatch.setattr(job, "log", logging.getLogger("duodiff.test"))
    for options in ([], ["--plan", '{"work": []}']):
        monkeypatch.setattr(sys, "argv", ["look", *options])
        job.run(look)
    inside = kept and str(work.parent / kept if given is None else kept)
    assert found == [given, inside]


def test_a_users_error_is_one_line_on_the_terminal_and_has_its_place_in_the_log(tmp_path):
    script, logged = tmp_path / "refuse.py", tmp_path / "refuse.log"
    lines = [
        "from duodiff.running import job",
        "def refuse() -> str:",
        "    raise ValueError('no')",
    ]
    script.write_text("\n".join([*lines, "job.run(refuse)", ""]), encoding="utf-8")
    program = [sys.executable, str(script), "--log", str(logged)]
    done = subprocess.run(program, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (1, "refuse: no\n")
    assert f'File "{script}", line 3, in refuse' in logged.read_text(encoding="utf-8")


def test_a_log_has_names_of_files_that_are_no_text(tmp_path):
    script, logged = tmp_path / "name.py", tmp_path / "name.log"
    lines = ["from duodiff.running import job", "def name() -> str:", "    return 'caf\\udce9'"]
    script.write_text("\n".join([*lines, "job.run(name)", ""]), encoding="utf-8")
    program = [sys.executable, str(script), "--log", str(logged)]
    done = subprocess.run(program, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert r"name: caf\udce9" in logged.read_text(encoding="utf-8")


IMPORTS = """
import sys
sys.argv = ["train_backbone.py", "--data", "x", "--log", {log!r}]
from duodiff.running import job
with job.importing():
    import a_library_that_is_not_there
"""


def test_an_import_that_fails_is_in_the_log_with_its_place(tmp_path):
    log = tmp_path / "job.log"
    program = [sys.executable, "-c", IMPORTS.format(log=str(log))]
    done = subprocess.run(program, capture_output=True, text=True, encoding="utf-8")
    message = "train_backbone: ModuleNotFoundError: No module named 'a_library_that_is_not_there'"
    assert (done.returncode, done.stderr.strip()) == (1, message)
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert message in log.read_text(encoding="utf-8")
