"""Keep freed memory in the process: XLA's CPU backend asks for its scratch memory anew in every call.

glibc hands blocks of more than 32 MiB back to the kernel and gets them, page by page and zeroed, again: 470 page faults
an image while the small ConvNet trains, a fifth of a step. Measured (width 16, 64 px, batch 32 / 64, two cores): 256 /
278 training images a second without this, 303 / 339 with it.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to serve large blocks from one heap that never shrinks; return whether it listened.

    Call it before the first computation: threads that have an arena of their own keep it. Elsewhere than on Linux with
    glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    most = 2**31 - 1
    settings = ((_MMAP_THRESHOLD, most), (_TRIM_THRESHOLD, most), (_TOP_PAD, 64 << 20), (_ARENA_MAX, 1))
    return all([mallopt(name, value) == 1 for name, value in settings])  # a list: all are set, whatever the first says
