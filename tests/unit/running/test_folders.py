"""Folders that cannot be written to: one line names them, before any work."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from duodiff.running import job
from duodiff.running.files import require_writable, use_temporary_folder

ROOT = Path(__file__).parents[3]
JOB = """
from pathlib import Path
from duodiff.running import job
def work(out: Path) -> str:
    "Works."
    print("worked")
    out.write_text("done", encoding="utf-8")
    return "done \u2192 \u03b8"
job.run(work)
"""


def run(*options, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", JOB, *map(str, options)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )


def test_a_folder_that_can_be_made_is_no_fault(tmp_path):
    require_writable(tmp_path)
    require_writable(tmp_path / "a/b/c")
    require_writable("not/there/yet")


def test_a_folder_is_named_that_is_a_file_or_a_link_to_nothing(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/not/there")
    with pytest.raises(OSError, match=r"/file: found a file; accepted: a folder"):
        require_writable(tmp_path / "file/a/b")
    with pytest.raises(OSError, match=r"/link: found a link to /not/there, which is not there"):
        require_writable(tmp_path / "link/a")


def test_a_folder_of_another_user_is_named(tmp_path, another_user):
    (tmp_path / "a/b").mkdir(parents=True, mode=0o555)
    (tmp_path / "a/b").chmod(0o555)
    said = another_user(lambda: require_writable(tmp_path / "a/b/c/d"))
    assert said == f"OSError: {tmp_path}/a/b: no permission to write to this folder"


@pytest.mark.parametrize("option", ["--out", "--log"])
def test_a_job_that_cannot_write_says_so_before_it_works(option, tmp_path):
    (tmp_path / "file").touch()
    done = run("--out", tmp_path / "x", option, tmp_path / "file/y")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_planned_outputs_are_looked_at_too(tmp_path):
    (tmp_path / "file").touch()
    job._check_folders([str(tmp_path / "x")], None)
    with pytest.raises(OSError, match="/file: found a file; accepted: a folder to write to"):
        job._check_folders([str(tmp_path / "x"), str(tmp_path / "file/y")], None)


def test_a_temporary_folder_that_is_missing_is_named_and_replaced(tmp_path):
    done = run("--out", tmp_path / "x", TMPDIR=str(tmp_path / "gone"))
    assert done.returncode == 0
    said, _ = done.stderr.splitlines()
    works = tempfile.gettempdir()
    assert said == f"TMPDIR: found {tmp_path}/gone, where nothing can be written; {works} is used"


def test_no_temporary_folder_at_all_is_said_in_a_line(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/not/there", "/nor/there"])
    with pytest.raises(
        OSError, match=r"^TMPDIR: No usable temp.* in \['/not/there', '/nor/there'\]"
    ):
        use_temporary_folder()


def test_a_temporary_folder_that_fills_up_is_named(tmp_path):
    full = """
import sqlite3
def work() -> str:
    table = sqlite3.connect("")
    table.execute("PRAGMA max_page_count = 2")
    table.execute("CREATE TABLE a (b)")
    table.execute("INSERT INTO a VALUES (zeroblob(100000))")
from duodiff.running import job
job.run(work)
"""
    done = subprocess.run(
        [sys.executable, "-c", full],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert done.stderr == f"work: {tmp_path}: TMPDIR cannot be used: database or disk is full\n"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_lacks_a_character_shows_its_code(encoding, tmp_path):
    done = run("--out", tmp_path / "x", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert "done \\u2192 \\u03b8" in done.stderr


def test_a_terminal_may_print_what_its_encoding_lacks():
    check = "from duodiff.running import job; job.tolerate_console(); print('\u2192')"
    done = subprocess.run(
        [sys.executable, "-c", check],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"\\u2192\n"
