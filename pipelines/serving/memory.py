"""Memory that the process no longer needs."""

from __future__ import annotations

import contextlib
import ctypes

#: The C library's number of the option, and the size (bytes) from which memory is returned at once.
_MMAP_THRESHOLD, _LARGE = -3, 1_000_000


def return_large() -> None:
    """Return large blocks of memory to the operating system as soon as they are freed.

    By default, the C library keeps blocks of up to 32 MB once it has seen such.
    """
    with contextlib.suppress(AttributeError):  # only glibc has mallopt
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)


def trim() -> None:
    """Return all freed memory to the operating system, which takes a moment."""
    with contextlib.suppress(AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
