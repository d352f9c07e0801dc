import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from duodiff.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
def work():
    for megabytes in (20, 60):
        torch.ones(megabytes << 18)
for _ in range(3):  # until the heap has found its size
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(memory: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, memory], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("this C library cannot be told to keep memory")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_that_was_freed_is_used_again_without_being_cleared():
    kept = _page_faults("keep")
    assert kept < 100
    assert kept < _page_faults("default") / 10
