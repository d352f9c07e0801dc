"""The workflow from a clone and a working directory of any name, as a module, and without a virtual environment."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Workflow

PACKED = "results/data/digits/manifest.json"
OUTER = """
import yaml

with open("{clone}/config/test.yaml", encoding="utf-8") as file:
    TEST = yaml.safe_load(file)


module duodiff:
    snakefile:
        "{clone}/Snakefile"
    config:
        TEST | {options}


use rule * from duodiff as duodiff_*


rule own:  # a wildcard of this workflow is not held to the constraints of the module's
    input:
        "results/{{seed}}.json",
    output:
        "own/{{seed}}.txt",
    shell:
        "true && cp {{input}} {{output}} && pwd"


rule local:
    output:
        "local.txt",
    localrule: True
    shell:
        "false || touch {{output}}"


rule everything:
    input:
        "own/architectures.txt",
        "local.txt",
        "{packed}",
    default_target: True


rule with_report:
    input:
        "results/report.html",
        "local.txt",


onsuccess:
    print("local:", *workflow._localrules)
"""


class Elsewhere:
    """A clone, and a working directory beside it: both have spaces in their paths."""

    def __init__(self, folder: Path):
        self.clone, self.folder = folder / "a clone", folder / "a study"
        self.clone.mkdir()
        self.folder.mkdir()
        Workflow(self.clone)

    def snakemake(self, *arguments: str, python: str = sys.executable, **environment: str) -> str:
        """Output of a run of the main workflow, or of one that the arguments name, that must succeed."""
        done = self.start(*arguments, python=python, **environment)
        found, _ = done.communicate()
        assert done.returncode == 0, found
        return found

    def start(self, *arguments: str, python: str = sys.executable, **environment: str):
        """A started run in the working directory."""
        unwanted = ("OMP_NUM_THREADS", "PYTHONPATH")  # of the shell that the tests run in
        kept = {k: v for k, v in os.environ.items() if k not in unwanted}
        return subprocess.Popen(
            [python, "-m", "snakemake", f"--directory={self.folder}", *arguments],
            env=kept | environment,
            cwd=self.folder.parent,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    @property
    def main(self) -> list[str]:
        """The options that name the workflow, by a path relative to where it is started, and the tests' study."""
        study = f"--configfile={self.clone}/config/test.yaml"
        return [f"--snakefile={self.clone.name}/Snakefile", study]

    def outer(self, **options: str) -> str:
        """The option that names an outer workflow, written here. The clone's is its module, with these options."""
        path = self.folder / "Snakefile"
        text = OUTER.format(clone=self.clone, packed=PACKED, options=options)
        path.write_text(text, encoding="utf-8")
        return f"--snakefile={path}"


@pytest.fixture
def elsewhere(tmp_path) -> Elsewhere:
    return Elsewhere(tmp_path)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".pyc"}


def test_the_default_study_is_the_clones_or_the_working_directorys(elsewhere):
    main = f"--snakefile={elsewhere.clone}/Snakefile"
    assert "results/digits/train0" in elsewhere.snakemake("-n", main)
    text = (elsewhere.clone / "config/test.yaml").read_text(encoding="utf-8")
    (elsewhere.folder / "config").mkdir()
    (elsewhere.folder / "config/config.yaml").write_text(
        text.replace("  digits: &digits\n", "  mine: &digits\n"), encoding="utf-8"
    )
    found = elsewhere.snakemake("-n", main, "--config", "only=mine")
    assert "results/mine/train0" in found
    assert "results/digits/" not in found


def test_the_slurm_profile_sends_jobs_that_find_the_clone(elsewhere):
    profile = f"--profile={elsewhere.clone}/profiles/slurm"
    found = elsewhere.snakemake("-n", "-p", profile, *elsewhere.main)
    training = re.search(r"^rule train_backbone:.*?\n\n", found, re.S | re.M)[0]
    assert "slurm_extra=--signal=TERM@120" in training
    assert f"export PYTHONPATH='{elsewhere.clone}'${{PYTHONPATH:+:$PYTHONPATH}}; " in training
    assert f"'{elsewhere.clone}/workflow_scripts/train_backbone.py'" in training
    assert "--out results/digits/train0/" in training


def test_packages_on_pythonpath_alone_are_enough(elsewhere):
    """The interpreter is the one below the virtual environment, where there is one."""
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    packages = sysconfig.get_path("purelib")
    arguments = [*elsewhere.main, "--cores=1", PACKED, "results/architectures.json"]
    # without site-packages of its own and of the user, of which a child process knows nothing
    elsewhere.snakemake(*arguments, python=str(python), PYTHONPATH=packages, PYTHONNOUSERSITE="1")
    assert (elsewhere.folder / PACKED).exists()


def test_two_studies_of_one_clone_run_at_the_same_time(elsewhere, tmp_path):
    before = files(elsewhere.clone)
    shutil.copytree(elsewhere.folder, tmp_path / "another")
    runs = []
    for folder, left_out in ((elsewhere.folder, 360), (tmp_path / "another", 300)):
        config = yaml.safe_load((elsewhere.clone / "config/test.yaml").read_text(encoding="utf-8"))
        config["datasets"]["digits"]["held_out"] = left_out
        (folder / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        options = [f"--directory={folder}", f"--configfile={folder}/mine.yaml", "--cores=1"]
        runs.append(elsewhere.start(elsewhere.main[0], *options, PACKED))
    for run in runs:
        found, _ = run.communicate()
        assert run.returncode == 0, found
    folders = (elsewhere.folder, tmp_path / "another")
    packed = [json.loads((folder / PACKED).read_text(encoding="utf-8")) for folder in folders]
    assert [p["splits"]["held_out"] for p in packed] == [[1437, 1797], [1497, 1797]]
    assert files(elsewhere.clone) == before


# --- as a module


def test_a_module_leaves_the_outer_workflow_as_it_is(elsewhere):
    before = files(elsewhere.clone)
    found = elsewhere.snakemake(elsewhere.outer(only="digits"), "--cores=1")
    (ended,) = re.findall(r"^local: (.*)", found, re.M)  # the module's own end does not come
    local = set(ended.split())
    assert {"local", "duodiff_describe_architectures", "duodiff_make_report"} <= local
    assert not {"own", "everything", "duodiff_pack_dataset", "duodiff_train_backbone"} & local
    own = (elsewhere.folder / "own/architectures.txt").read_bytes()
    assert own == (elsewhere.folder / "results/architectures.json").read_bytes()
    assert (elsewhere.folder / PACKED).exists()
    assert files(elsewhere.clone) == before
    assert "Nothing to be done" in elsewhere.snakemake(elsewhere.outer(only="digits"), "--cores=1")


def test_a_module_takes_the_default_study_and_no_option_of_the_outer_workflow(elsewhere):
    path = elsewhere.folder / "Snakefile"
    text = f'module duodiff:\n    snakefile: "{elsewhere.clone}/Snakefile"\n'
    path.write_text(text + "use rule * from duodiff as duodiff_*\n", encoding="utf-8")
    arguments = ["-n", f"--snakefile={path}", "results/summary.txt", "--config", "unknown=1"]
    found = elsewhere.snakemake(*arguments)
    assert re.search(r"^duodiff_summarise +1$", found, re.M)


def test_a_module_refuses_a_prefix(elsewhere):
    option = elsewhere.outer()
    text = (elsewhere.folder / "Snakefile").read_text(encoding="utf-8")
    prefixed = text.replace("    config:\n", '    prefix:\n        "x"\n    config:\n')
    (elsewhere.folder / "Snakefile").write_text(prefixed, encoding="utf-8")
    run = elsewhere.start("-n", option)
    found, _ = run.communicate()
    assert run.returncode != 0
    assert "prefix and replace_prefix of a module" in found


# --- a finished study


def test_a_finished_study_is_finished_elsewhere_and_in_a_module_that_makes_its_report(
    finished, elsewhere
):
    for name in ("results", "logs", "benchmarks"):
        shutil.copytree(finished.folder / name, elsewhere.folder / name)
    (elsewhere.folder / "results/report.html").unlink()
    assert "Nothing to be done" in elsewhere.snakemake("-n", *elsewhere.main, "summarise")
    found = elsewhere.snakemake(elsewhere.outer(), "--cores=1", "with_report")
    jobs = re.findall(r"^(?:local)?rule (\w+):", found, re.M)
    assert sorted(jobs) == ["duodiff_make_report", "local", "with_report"]
    report = (elsewhere.folder / "results/report.html").read_text(encoding="utf-8")
    assert '"item": "Table 1: DDIM"' in report
    assert "DuoDiff, reproduced" in report


# --- make


def test_make_finds_its_programs_in_a_clone_with_a_space(elsewhere):
    shutil.copy(ROOT / "Makefile", elsewhere.clone)
    programs = elsewhere.clone / ".venv/bin"
    programs.mkdir(parents=True)
    (programs.parent / ".installed").touch()
    (programs / "snakemake").write_text('#!/bin/sh\nprintf "<%s>" "$0" "$@"\n', encoding="utf-8")
    (programs / "snakemake").chmod(0o755)
    for name in ("envs/requirements.txt", "pyproject.toml"):
        (elsewhere.clone / name).touch()
        os.utime(elsewhere.clone / name, (0, 0))
    command = ["make", "-C", str(elsewhere.clone), "report", "REPORT=results/a report.html"]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout
    assert f"<{programs}/snakemake><--report><results/a report.html>" in found


TITLES = ["Ba$$eline {b} {experiment} {{c}} %s <b> a|b \\\\ _ ' \" `ls` $(ls)", "Bäume → 日本 #"]
PLAIN = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("environment", [{}, PLAIN], ids=["utf-8", "ascii"])
def test_rules_take_any_title_in_any_locale(environment, elsewhere):
    study = elsewhere.clone / "config/test.yaml"
    config = yaml.safe_load(study.read_text(encoding="utf-8"))
    for experiment, title in zip(config["experiments"].values(), TITLES, strict=True):
        experiment["title"] = title
    study.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    elsewhere.snakemake("-n", "-p", *elsewhere.main, **environment)
    table = "results/tables/table4.csv"
    found = elsewhere.snakemake("--cores=1", "-p", *elsewhere.main, "--", table, **environment)
    assert "Logging error" not in found
    text = (elsewhere.folder / table).read_text(encoding="utf-8")
    assert set(TITLES) < {row["dataset"] for row in csv.DictReader(text.splitlines())}


@pytest.mark.parametrize("name", ["results", "logs", "benchmarks"])
def test_a_folder_that_cannot_be_written_to_is_named_before_any_job(name, elsewhere):
    (elsewhere.folder / name).symlink_to("/not/there")
    process = elsewhere.start("--cores=1", *elsewhere.main)
    found, _ = process.communicate()
    assert process.returncode == 1
    assert f"\n{name}: found a link to /not/there, which is not there\n" in found
    assert "Traceback" not in found
    assert "rule " not in found


def test_a_name_that_yaml_reads_as_a_number_is_refused_with_its_line(elsewhere):
    study = elsewhere.clone / "config/test.yaml"
    text = study.read_text(encoding="utf-8")
    study.write_text(text.replace("  digits: &digits\n", "  no: &digits\n"), encoding="utf-8")
    process = elsewhere.start("-n", *elsewhere.main)
    found, _ = process.communicate()
    assert re.search(r"test.yaml, line \d+: found no \(true or false\); write it in quotes", found)
    assert "TypeError" not in found


def test_a_home_that_cannot_be_made_is_no_fault_with_a_cache_elsewhere(elsewhere):
    told = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": str(elsewhere.folder / "cache")}
    elsewhere.snakemake("--cores=1", *elsewhere.main, "--", "results/tables/table4.csv", **told)
