"""Makes the C library keep what was freed, for workers that sum large gradients.

OneFlow's all-reduce on a CPU allocates room for half of what it sums, at each step. glibc maps
blocks of more than 32 MB anew each time: for AlexNet's largest weights 19,000 page faults a step,
a tenth of the step's time.
"""

from __future__ import annotations

import ctypes

# Of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Lets freed blocks of any size be used again; says whether the C library can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl's has no such call
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
