"""Memory of blocks that come and go: kept by the process, since the next block needs as much."""

from __future__ import annotations

import ctypes

KEPT = 64 << 20  # most bytes of freed memory that are kept, at the end of each of malloc's heaps
LARGEST = 8 << 20  # bytes of an allocation from which on it is mapped for itself, and handed back at once
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)


def keep_freed() -> bool:
    """Have glibc keep freed memory up to KEPT; False where there is no mallopt(3).

    By default it hands a block of two megabytes back to the kernel, which clears and maps its pages again for the next.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_TRIM_THRESHOLD, KEPT) and mallopt(_MMAP_THRESHOLD, LARGEST))
