"""Makes the C library keep what was freed, for workers that sum large gradients.

OneFlow's all-reduce on a CPU allocates room for half of what it sums, at each step. glibc maps
blocks of more than 32 MB anew each time: 30,000 page faults a step of AlexNet, whose zeroing is a
twentieth of the step's time.
"""

from __future__ import annotations

import ctypes

# Of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed_memory() -> None:
    """Lets freed blocks of any size be used again, where the C library is glibc.

    Call it before OneFlow starts its threads: what they had allocated apart would be held twice.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl's
        return
    # Blocks of any size come from one heap, which does not shrink.
    for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
        mallopt(parameter, value)
