"""The C library's allocator -> one that gives memory back."""

import ctypes

# The number that glibc's <malloc.h> gives M_MMAP_THRESHOLD.
MMAP_THRESHOLD = -3
# Of large pictures, and of what their slices are cut from. Blocks from 1 MiB on gave the same in the soak.
LARGE_BYTES = 4 * 2**20


def give_large_blocks_back() -> None:
    """Have every block of four mebibytes or more returned to the system as soon as it is freed.

    Of itself glibc stops doing so for blocks no larger than the largest that was ever freed, up to 32 MiB: pictures lie between what lives
    longer, and the gaps that they leave are kept. Other C libraries have no such threshold and are left as they are.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:
        change(MMAP_THRESHOLD, LARGE_BYTES)
