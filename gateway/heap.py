"""Keep what many threads allocate in one heap, so that one uses again what another let go.

glibc gives each thread an arena of its own, and each keeps tens of MiB of what was freed in it.
With a dozen threads that fetch 16 MiB at a time, that is more than all that is in use. The
interpreter's lock lets one thread allocate at a time anyway.
"""

import ctypes

from backgate.gateway.units import MIB

# Bytes at the end of the heap that are free and not given back: what reads take in turn.
KEPT = 64 * MIB
LARGEST = 32 * MIB  # bytes; more is mapped and unmapped each time. glibc takes no larger value

_ARENA_MAX, _TRIM_THRESHOLD, _MMAP_THRESHOLD = -8, -1, -3  # mallopt(3)


def share_one_heap() -> None:
    """Let the threads that start from now on share one heap, where the C library can.

    It keeps some of what was freed: to map a GiB anew, page by page, costs 0.2 s of CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, LARGEST)
        mallopt(_TRIM_THRESHOLD, KEPT)
