"""Freed memory stays with the process. In processes of their own: the setting is one of the whole process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.commands.memory import LARGEST

BLOCKS = """
import resource, sys, threading
from engine.commands.memory import keep_freed
if sys.argv[1] == "keep" and not keep_freed():
    sys.exit(77)

def work():
    for _ in range(40):
        bytearray(int(sys.argv[2]))

thread = threading.Thread(target=work)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, size: int) -> int:
    """Page faults of a process that allocates and frees 40 blocks of a size, one after the other."""
    words = [sys.executable, "-c", BLOCKS, how, str(size)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("the C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_pages_of_a_freed_block_serve_the_next_one() -> None:
    size = LARGEST // 2
    assert faults("keep", size) < 2 * size // 4096 < 40 * size // 4096


def test_the_largest_allocations_still_go_back_to_the_kernel() -> None:
    size = 2 * LARGEST
    assert faults("keep", size) > 20 * size // 4096
