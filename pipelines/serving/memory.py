"""Memory that the process no longer needs."""

from __future__ import annotations

import contextlib
import ctypes


def trim() -> None:
    """Return freed memory to the operating system, which the C library would keep."""
    with contextlib.suppress(AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
