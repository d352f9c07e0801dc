import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from duodiff.running.memory import keep_freed_memory
def work():
    for megabytes in (20, 60):
        torch.ones(megabytes << 18)
def page_faults():
    for _ in range(10):  # the heap grows until it has a place for each
        work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
default = page_faults()
if not keep_freed_memory():
    sys.exit(3)
print(default, page_faults())
"""

JOB = """
import sys
{imported}
from duodiff.running import job, memory
def nothing() -> str:
    return str(memory.keep_freed_memory.cache_info().currsize)
job.run(nothing)
"""


@pytest.mark.parametrize(
    ("imported", "kept"), [pytest.param("import torch", 1, marks=pytest.mark.slow), ("", 0)]
)
def test_jobs_keep_it_that_work_with_tensors(imported, kept):
    program = [sys.executable, "-c", JOB.format(imported=imported)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, encoding="utf-8")
    assert f"nothing: {kept}" in done.stderr


@pytest.mark.slow
def test_memory_that_was_freed_is_used_again_without_being_cleared():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode == 3:
        pytest.skip("this C library cannot be told to keep memory")
    assert done.returncode == 0, done.stderr
    default, kept = map(int, done.stdout.split())
    assert kept < default / 4
