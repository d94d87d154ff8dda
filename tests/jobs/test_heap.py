"""The heap of workers that sum gradients: what is freed is used again, not mapped anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = 64 << 20
_COUNT = """
import ctypes, resource, sys

sys.path.insert(0, {root!r})
if {kept}:
    from jobs.heap import keep_freed_memory

    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for turn in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc({block})
    ctypes.memset(block, 0, {block})
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults_of_the_third_block(kept: bool) -> int:
    code = _COUNT.format(root=str(ROOT), kept=kept, block=_BLOCK)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_large_block_is_not_mapped_anew() -> None:
    assert _faults_of_the_third_block(kept=True) < 16
    # Without it each turn touches all of its pages for the first time.
    assert _faults_of_the_third_block(kept=False) > 16
